"""What the frames of (B, T, C) go through one by one or beside their neighbours: projections, convolutions, norms.

PyTorch's convolutions and norms want (B, C, T).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from .dispatch import dispatched


@dispatched
def pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """(B, T, C) -> (B, T, D) by a convolution of kernel 1."""
    return conv(x.transpose(1, 2)).transpose(1, 2)


@dispatched
def depthwise(conv: nn.Module, x: Tensor, left: int, right: int) -> Tensor:
    """(B, T, C) -> (B, left + T + right - K + 1, C) by ``conv``, after zeros on both sides; fewer at a stride"""
    return conv(pad(x.transpose(1, 2), (left, right))).transpose(1, 2)


def normalized(norm: nn.Module, x: Tensor) -> Tensor:
    """(B, T, C) by a norm over (B, C, T)"""
    # Contiguous, or PyTorch's batch norm sums what goes into its gradients less exactly.
    return norm(x.transpose(1, 2).contiguous()).transpose(1, 2)
