"""What is between the products of queries with keys and the weights of attention."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad


def attention_weights(scores: Tensor, blocked: Tensor | None) -> Tensor:
    """scores: (B, H, T, S), blocked: (B, T, S) or None -> (B, H, T, S)"""
    if blocked is None:
        return scores.softmax(dim=-1)
    blocked = blocked[:, None]
    # Twice: a query that may see nothing must get zeros, not the mean of what it may not see.
    return scores.masked_fill(blocked, -10000.0).softmax(dim=-1).masked_fill(blocked, 0.0)


def relative_shift(x: Tensor) -> Tensor:
    """(B, H, T, S + T - 1) -> same: column p of row t becomes column p - (T - 1 - t)."""
    b, h, t, n = x.size()
    return pad(x, (1, 0)).view(b, h, -1, t)[:, :, 1:].reshape(b, h, t, n)
