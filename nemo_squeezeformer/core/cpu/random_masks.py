"""Which elements dropout keeps, a byte each; on a CPU four are drawn at once, as drawing is what costs most there."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 2**16  # outcomes of one draw


def kept_rate(rate: float) -> float:
    """How likely ``kept`` keeps an element: ``1 - rate`` to the next of 2^16 steps."""
    return 1.0 - round(rate * DRAWS) / DRAWS


def kept(x: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """As large as ``x``, uint8: 0 where dropout with probability ``rate`` leaves an element out, 1 elsewhere."""
    if x.device.type != "cpu":
        mask = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
        return mask.bernoulli_(kept_rate(rate), generator=generator)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
    draws.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    kept = draws.view(torch.int16).ge_(round(rate * DRAWS) - DRAWS // 2)
    return kept[: x.numel()].to(torch.uint8).view(x.shape)
