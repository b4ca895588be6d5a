"""Attention of few queries to many keys, which projects the queries instead of the keys: (W k) . q = k . (W^T q).

A step of a stream has a few new frames and a long left context. The reference implementation projects the whole left
context to keys and values in each step. A cache of projected keys and values would need twice the memory. The fast
implementation projects the queries and the attended frames instead, and leaves the left context unprojected.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..attention.multi_head import MultiHeadAttention, RelPositionAttention
from ..attention.scores import attention_weights, relative_shift
from ..dispatch import implements
from ..frames.masks import Frames
from ..frames.state import finite


def is_cheaper(attention: Any, x: Tensor, context: Tensor, *args: Any, **named: Any) -> bool:
    """Return True if ``absorbed_attention`` needs fewer operations than the reference implementation.

    The result is False in training, for other classes than ``RelPositionAttention``, and if ``context`` is ``x``.

    Args:
        attention: Attention module.
        x: Frames of the queries (B, T, D).
        context: Frames of the keys (B, S, D).
        *args: The other arguments of ``attended``, which do not change the result.
        **named: The same arguments, if they are passed by name.
    """
    if type(attention) is not RelPositionAttention or attention.training or x is context:
        return False
    (b, t, d), s = x.size(), context.size(1)
    keys, positions = 2 * s, s + t - 1  # projected frames of each stream; projected positions that all streams share
    absorbing = b * t * (3 * d + (attention.n_heads - 1) * (keys + positions))
    return absorbing < (b * keys + positions) * d


@implements(
    MultiHeadAttention.attended,
    graphs=True,
    plain=lambda self, *args, **named: (self.linear_k, self.linear_v, self.linear_pos),
    when=is_cheaper,
)
def absorbed_attention(attention: Any, x: Tensor, context: Tensor, frames: Frames, positions: Tensor) -> Tensor:
    """Return the attended values: x (B, T, D), context (B, S, D), positions (S + T - 1, D) -> (B, H, T, D / H).

    The values equal the result of ``RelPositionAttention.attended`` within rounding.
    """
    b, t, d = x.size()
    h = attention.n_heads
    q = attention.heads(attention.linear_q(x)).transpose(0, 1)  # (H, B, T, D / H)
    u, v = attention.pos_bias_u[:, None, None], attention.pos_bias_v[:, None, None]

    def weight(linear: nn.Linear) -> Tensor:
        return linear.weight.view(h, d // h, d)

    def absorb(q: Tensor, linear: nn.Linear) -> Tensor:
        """Multiply queries with the weight of ``linear``: (H, B, T, D / H) -> (B, H * T, D)."""
        # The batch of the product is the heads. If the batch were the streams, each stream would copy the weights.
        return (q.flatten(1, 2) @ weight(linear)).view(h, b, t, d).transpose(0, 1).flatten(1, 2)

    content = (absorb(q + u, attention.linear_k) @ context.transpose(1, 2)).view(b, h, t, -1)
    position = (absorb(q + v, attention.linear_pos) @ positions.t()).view(b, h, t, -1)
    # The bias of linear_k is left out: it would add the same value to all scores of a query, and softmax would cancel
    # this value.
    scores = (content + relative_shift(position)[..., : context.size(1)]) / math.sqrt(d // h)
    weights = attention_weights(scores, frames.blocked)  # (B, H, T, S)
    values = finite(context) if frames.several_chunks else context  # as in the reference implementation
    seen = (weights.flatten(1, 2) @ values).view(b, h, t, d).transpose(0, 1)
    attended = seen.flatten(1, 2) @ weight(attention.linear_v).transpose(1, 2)
    attended = attended.view(h, b, t, -1).transpose(0, 1)  # (B, H, T, D / H)
    if attention.linear_v.bias is None:
        return attended
    bias = attention.linear_v.bias.view(h, 1, d // h)
    if frames.blocked is None:
        return attended + bias
    sees = ~frames.blocked.all(dim=-1)[:, None, :, None]  # (B, 1, T, 1)
    return attended + sees * bias
