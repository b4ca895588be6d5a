"""Attention whose queries, keys and values are one product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..attention.local import LocalAttention
from ..attention.multi_head import MultiHeadAttention, RelPositionAttention
from ..cpu.linear import FastLinear, Rows


class Fused(MultiHeadAttention):
    """The mixin that projects by ``linear_qkv`` where queries and keys are made of the same frames.

    Where they are not, in a stream that remembers frames, ``linear_q``, ``linear_k`` and ``linear_v`` are its rows.
    """

    linear_qkv: FastLinear

    def projected(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, T, D), context: (B, S, D) -> queries (B, H, T, D / H), keys and values (B, H, S, D / H)"""
        if x is not context:
            return super().projected(x, context)
        q, k, v = self.linear_qkv(x).chunk(3, dim=-1)
        return self.heads(q), self.heads(k), self.heads(v)


class FusedAttention(Fused):
    """``MultiHeadAttention``, fused."""


class FusedRelPositionAttention(Fused, RelPositionAttention):
    """``RelPositionAttention``, fused."""


class FusedLocalAttention(Fused, LocalAttention):
    """``LocalAttention``, fused."""


FUSED: dict[type[MultiHeadAttention], type[Fused]] = {
    MultiHeadAttention: FusedAttention,
    RelPositionAttention: FusedRelPositionAttention,
    LocalAttention: FusedLocalAttention,
}


def fused(attention: MultiHeadAttention) -> MultiHeadAttention:
    """``attention`` with its three projections as one, of the same weights; another kind of attention as it is."""
    linears = (attention.linear_q, attention.linear_k, attention.linear_v)
    if type(attention) not in FUSED or not all(type(linear) is nn.Linear for linear in linears):
        return attention
    kind = FUSED[type(attention)]
    new: Any = kind.__new__(kind)
    new.__dict__ = attention.__dict__
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears]) if linears[0].bias is not None else None
    d = attention.linear_q.out_features
    new.linear_qkv = FastLinear(weight, bias)
    new.linear_q, new.linear_k, new.linear_v = (Rows(new.linear_qkv, i * d, d) for i in range(3))
    return new
