"""The random masks of dropout, with one byte per element.

On a CPU, each random number gives the mask of four elements, because drawing the random numbers takes the most time.
"""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 2**16  # number of different values of the 16 random bits of an element


def kept_rate(rate: float) -> float:
    """Return the probability that ``kept`` keeps an element: ``1 - rate``, rounded to a multiple of 2^-16."""
    return 1.0 - round(rate * DRAWS) / DRAWS


def kept(x: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a uint8 mask with the shape of ``x``: 1 where dropout keeps the element, 0 where dropout removes it.

    Dropout removes an element with probability ``rate``.
    """
    if x.device.type != "cpu":
        mask = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
        return mask.bernoulli_(kept_rate(rate), generator=generator)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
    draws.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    kept = draws.view(torch.int16).ge_(round(rate * DRAWS) - DRAWS // 2)
    return kept[: x.numel()].to(torch.uint8).view(x.shape)
