"""The operations on frames (B, T, C): pointwise and depthwise convolutions, and norms.

PyTorch's convolutions and norms need inputs (B, C, T), so these operations transpose the frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm

from .dispatch import dispatched


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


def normalized_by(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply ``norm`` to ``x`` (B, C, T).

    In training, a batch norm updates its running statistics. If the new statistics are not finite, all statistics of
    the norm return to the values before the call. Otherwise a single NaN would stay in the mean for ever, also in a
    training that skips the step of this batch.

    This is a function and not a class, because ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` changes the class of
    batch norms. The function reads no values, so a GPU does not wait.
    """
    if not (isinstance(norm, _BatchNorm) and norm.training and norm.running_mean is not None):
        return norm(x)
    mean, variance, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert variance is not None
    mean_before, variance_before = mean.clone(), variance.clone()
    x = norm(x)
    broken = ((mean + variance) * 0.0).any()  # 0 times a finite value is 0, and ``any`` counts NaN as True
    # In training, the backward pass does not use these statistics. Autograd would refuse the change without ``data``.
    mean.data.copy_(torch.where(broken, mean_before, mean))
    variance.data.copy_(torch.where(broken, variance_before, variance))
    if batches is not None:  # the backward pass of gradient checkpointing hides the number of batches
        batches.add_(broken, alpha=-1)
    return x
