"""Batch norms over frames as they lie in memory.

In training a batch norm is slow over what is not contiguous, and sums a batch of frames in one low-precision total. In
evaluation all frames are alike to it, and so are a batch of them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..dispatch import implements
from ..operations import normalized


@implements(normalized, when=lambda norm, x: isinstance(norm, _BatchNorm))
def norm_of_contiguous(norm: nn.Module, x: Tensor) -> Tensor:
    """(B, T, C) -> (B, T, C)"""
    if norm.training or x.device.type != "cpu":
        return norm(x.transpose(1, 2).contiguous()).transpose(1, 2)
    return norm(x.reshape(-1, x.size(2))).view(x.shape)
