"""Attention of few queries to many keys, by the queries going to the keys: (W k) . q = k . (W^T q).

A step of a stream has a few new frames and a long memory of others, which would all be projected to keys and values
again, or be remembered twice over as both. Here the queries are projected instead, and what they gather.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..attention.multi_head import MultiHeadAttention, RelPositionAttention
from ..attention.scores import attention_weights, relative_shift
from ..dispatch import implements
from ..frames.masks import Frames


def is_cheaper(attention: Any, x: Tensor, context: Tensor, *args: Any) -> bool:
    """Whether this takes fewer operations for queries of ``x`` (B, T, D) and keys of ``context`` (B, S, D)."""
    if type(attention) is not RelPositionAttention or attention.training or x is context:
        return False
    (b, t, d), s = x.size(), context.size(1)
    keys, positions = 2 * s, s + t - 1  # rows of each stream, as keys and as values; rows that all streams share
    absorbing = b * t * (3 * d + (attention.n_heads - 1) * (keys + positions))
    return absorbing < (b * keys + positions) * d


@implements(
    MultiHeadAttention.attended,
    graphs=True,
    plain=lambda self, *args: (self.linear_k, self.linear_v, self.linear_pos),
    when=is_cheaper,
)
def absorbed_attention(attention: Any, x: Tensor, context: Tensor, frames: Frames, positions: Tensor) -> Tensor:
    """What ``RelPositionAttention`` gives before ``linear_out``, within rounding.

    x: (B, T, D), context: (B, S, D), positions: (S + T - 1, D) -> (B, H, T, D / H)
    """
    b, t, d = x.size()
    h = attention.n_heads
    q = attention.heads(attention.linear_q(x)).transpose(0, 1)  # (H, B, T, D / H)
    u, v = attention.pos_bias_u[:, None, None], attention.pos_bias_v[:, None, None]

    def weight(linear: nn.Linear) -> Tensor:
        return linear.weight.view(h, d // h, d)

    def absorb(q: Tensor, linear: nn.Linear) -> Tensor:
        """(H, B, T, D / H) -> (B, H * T, D)"""
        # By heads, not by streams, each of which would get a copy of the weights.
        return (q.flatten(1, 2) @ weight(linear)).view(h, b, t, d).transpose(0, 1).flatten(1, 2)

    content = (absorb(q + u, attention.linear_k) @ context.transpose(1, 2)).view(b, h, t, -1)
    position = (absorb(q + v, attention.linear_pos) @ positions.t()).view(b, h, t, -1)
    # The bias of linear_k adds the same to all scores of a query, which softmax does not see.
    scores = (content + relative_shift(position)[..., : context.size(1)]) / math.sqrt(d // h)
    weights = attention_weights(scores, frames.blocked)  # (B, H, T, S)
    seen = (weights.flatten(1, 2) @ context).view(b, h, t, d).transpose(0, 1)
    attended = seen.flatten(1, 2) @ weight(attention.linear_v).transpose(1, 2)
    attended = attended.view(h, b, t, -1).transpose(0, 1)  # (B, H, T, D / H)
    if attention.linear_v.bias is None:
        return attended
    bias = attention.linear_v.bias.view(h, 1, d // h)
    if frames.blocked is None:
        return attended + bias
    sees = ~frames.blocked.all(dim=-1)[:, None, :, None]  # (B, 1, T, 1)
    return attended + sees * bias
