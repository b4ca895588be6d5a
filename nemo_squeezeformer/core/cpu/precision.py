"""The precision that autocast chooses for a linear layer. Devices such as ``meta`` have no autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available


def low_precision(*tensors: Tensor | None) -> list[Any]:
    """Return ``tensors`` in the dtype that autocast chooses for a linear layer.

    An argument None stays None. As in PyTorch, autocast does not change tensors in float64.
    """
    device = next(x.device.type for x in tensors if x is not None)
    if not is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return list(tensors)
    low = torch.get_autocast_dtype(device)
    return [x if x is None or x.dtype == torch.float64 else x.to(low) for x in tensors]


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which operations on ``device`` keep the precision of their operands."""
    return torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()
