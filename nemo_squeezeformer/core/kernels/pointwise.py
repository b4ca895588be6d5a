"""A convolution with kernel size 1 as a matrix product, which keeps the channels of a frame contiguous in memory."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from ..dispatch import implements
from ..operations import pointwise


@implements(pointwise, graphs=True, plain=lambda conv, x: (conv,), when=lambda conv, x: type(conv) is nn.Conv1d)
def pointwise_as_product(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply the convolution: (B, T, C) -> (B, T, D)."""
    return linear(x, conv.weight[..., 0], conv.bias)
