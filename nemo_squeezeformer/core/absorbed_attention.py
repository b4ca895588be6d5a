"""Attention of few queries to many keys, by the queries going to the keys: (W k) . q = k . (W^T q).

A step of a stream has a few new frames and a long memory of others, which would all be projected to keys and values
again, or be remembered twice over as both. Here the queries are projected instead, and what they gather.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from .attention_scores import attention_weights, relative_shift


def absorbs(attention: Any, t: int, s: int) -> bool:
    """Whether this is the faster way for ``t`` queries and ``s`` keys, in inference with plain linear layers."""
    linears = (attention.linear_k, attention.linear_v, attention.linear_pos)
    d_model, heads = attention.linear_q.in_features, attention.n_heads
    cheaper = t * (d_model + (heads - 1) * s) < s * d_model
    return cheaper and not attention.training and all(type(linear) is nn.Linear for linear in linears)


def absorbed_attention(attention: Any, x: Tensor, context: Tensor, blocked: Tensor, positions: Tensor) -> Tensor:
    """What ``RelPositionAttention`` gives before ``linear_out``, within rounding.

    x: (B, T, D), context: (B, S, D), blocked: (B, 1, T, S), positions: (S + T - 1, D) -> (B, H, T, D / H)
    """
    b, t, d = x.size()
    h = attention.n_heads
    q = attention.heads(attention.linear_q(x))  # (B, H, T, D / H)
    u, v = attention.pos_bias_u[:, None], attention.pos_bias_v[:, None]

    def absorb(q: Tensor, linear: nn.Linear) -> Tensor:
        """(B, H, T, D / H) -> (B, H * T, D)"""
        return (q @ linear.weight.view(h, d // h, d)).flatten(1, 2)

    content = (absorb(q + u, attention.linear_k) @ context.transpose(1, 2)).view(b, h, t, -1)
    position = (absorb(q + v, attention.linear_pos) @ positions.t()).view(b, h, t, -1)
    # The bias of linear_k adds the same to all scores of a query, which softmax does not see.
    scores = (content + relative_shift(position)[..., : context.size(1)]) / math.sqrt(d // h)
    weights = attention_weights(scores, blocked)  # (B, H, T, S)
    seen = (weights.flatten(1, 2) @ context).view(b, h, t, d)
    attended = seen @ attention.linear_v.weight.view(h, d // h, d).transpose(1, 2)
    if attention.linear_v.bias is None:
        return attended
    sees = ~blocked.all(dim=-1, keepdim=True)
    return attended + sees * attention.linear_v.bias.view(h, 1, d // h)
