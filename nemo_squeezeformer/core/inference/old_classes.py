"""Classes in optimised encoders that were pickled when queries, keys and values were one product there."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from ..attention.local import LocalAttention
from ..attention.multi_head import MultiHeadAttention, RelPositionAttention
from ..cpu.linear import FastLinear
from ..dispatch import plain_module

FusedAttention, FusedRelPositionAttention, FusedLocalAttention = (
    MultiHeadAttention,
    RelPositionAttention,
    LocalAttention,
)


@plain_module
class Rows(nn.Module):
    """A part of a linear layer, as a layer of its own: ``count`` of its outputs from ``first`` on."""

    whole: FastLinear
    first: int
    count: int

    @property
    def weight(self) -> Tensor:
        return self.whole.weight.narrow(0, self.first, self.count)

    @property
    def bias(self) -> Tensor | None:
        return None if self.whole.bias is None else self.whole.bias.narrow(0, self.first, self.count)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., count)"""
        return linear(x, self.weight, self.bias)
