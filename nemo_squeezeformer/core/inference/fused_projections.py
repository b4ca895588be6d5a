"""Queries, keys and values as one product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.local_attention import LocalAttention
from ..attention.multi_head import MultiHeadAttention, RelPositionAttention
from ..cpu.linear import FastLinear, Rows
from ..dispatch import implements, is_plain

# The classes of fused attention in encoders that were pickled when it was of classes of its own.
FusedAttention, FusedRelPositionAttention, FusedLocalAttention = (
    MultiHeadAttention,
    RelPositionAttention,
    LocalAttention,
)
KINDS = (MultiHeadAttention, RelPositionAttention, LocalAttention)


@implements(
    MultiHeadAttention.projected,
    graphs=True,
    when=lambda self, x, context: x is context and "linear_qkv" in self._modules,
)
def project_at_once(self: MultiHeadAttention, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, context: (B, T, D) -> queries, keys and values (B, H, T, D / H)"""
    q, k, v = self.get_submodule("linear_qkv")(x).chunk(3, dim=-1)
    return self.heads(q), self.heads(k), self.heads(v)


def fuse_projections(attention: MultiHeadAttention) -> None:
    """Gives ``attention`` its three projections as one layer, ``linear_qkv``, of the same weights.

    ``linear_q``, ``linear_k`` and ``linear_v`` become its rows: for a stream, whose keys are of more frames than its
    queries. Attention of another kind, or whose layers are not plain, stays as it is.
    """
    linears = (attention.linear_q, attention.linear_k, attention.linear_v)
    if type(attention) not in KINDS or not all(type(linear) is nn.Linear and is_plain(linear) for linear in linears):
        return
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears]) if linears[0].bias is not None else None
    d = attention.linear_q.out_features
    whole = FastLinear(weight, bias)
    attention.add_module("linear_qkv", whole)
    for i, name in enumerate(("linear_q", "linear_k", "linear_v")):
        setattr(attention, name, Rows(whole, i * d, d))
