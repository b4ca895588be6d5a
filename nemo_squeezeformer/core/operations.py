"""The operations on frames (B, T, C): pointwise and depthwise convolutions, and norms.

PyTorch's convolutions and norms need inputs (B, C, T), so these operations transpose the frames.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from .dispatch import dispatched
from .statistics import normalized_by


@dispatched
def pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution with kernel size 1: (B, T, C) -> (B, T, D)."""
    return conv(x.transpose(1, 2)).transpose(1, 2)


@dispatched
def depthwise(conv: nn.Module, x: Tensor, left: int, right: int) -> Tensor:
    """Apply a depthwise convolution after zero padding: (B, T, C) -> (B, left + T + right - K + 1, C).

    K is the kernel size. A convolution with a stride above 1 returns fewer frames.
    """
    return conv(pad(x.transpose(1, 2), (left, right))).transpose(1, 2)


def normalized(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply ``norm``, a norm for inputs (B, C, T), to ``x``: (B, T, C) -> (B, T, C)."""
    # With a contiguous input, PyTorch's batch norm sums the gradients of the weights more exactly.
    return normalized_by(norm, x.transpose(1, 2).contiguous()).transpose(1, 2)
