"""The precision that autocast chooses for a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def low_precision(*tensors: Tensor | None) -> list[Any]:
    """Return ``tensors`` in the dtype that autocast chooses for a linear layer. An argument None stays None."""
    device = next(x.device.type for x in tensors if x is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    low = torch.get_autocast_dtype(device)
    return [None if x is None else x.to(low) for x in tensors]
