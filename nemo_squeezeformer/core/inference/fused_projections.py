"""The projections to queries, keys and values as one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.local_attention import LocalAttention
from ..attention.multi_head import MultiHeadAttention, RelPositionAttention
from ..attention.rotary import RotaryAttention
from ..cpu.linear import FastLinear, Rows
from ..dispatch import implements, is_plain

# Encoders that were pickled by earlier versions refer to these names.
FusedAttention, FusedRelPositionAttention, FusedLocalAttention = (
    MultiHeadAttention,
    RelPositionAttention,
    LocalAttention,
)
KINDS = (MultiHeadAttention, RelPositionAttention, LocalAttention, RotaryAttention)


@implements(
    MultiHeadAttention.projected,
    graphs=True,
    when=lambda self, x, context: x is context and "linear_qkv" in self._modules,
)
def project_at_once(self: MultiHeadAttention, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries, the keys and the values of ``x``: (B, T, D) -> three tensors (B, H, T, D / H).

    ``context`` must be ``x``.
    """
    q, k, v = self.get_submodule("linear_qkv")(x).chunk(3, dim=-1)
    return self.heads(q), self.heads(k), self.heads(v)


def fuse_projections(attention: MultiHeadAttention) -> None:
    """Replace the three projections of ``attention`` by the layer ``linear_qkv``, which has the weights of all three.

    ``linear_q``, ``linear_k`` and ``linear_v`` become views of the rows of ``linear_qkv``. A stream needs these three
    layers, because the keys of a stream come from more frames than the queries. With rotary positions, a stream does
    not need these layers, because the stream remembers keys and values. The function does not change attention
    of other classes, or attention with projections that are not plain.
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
