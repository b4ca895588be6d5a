"""The steps from the products of queries and keys to the attention weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad


def attention_weights(scores: Tensor, blocked: Tensor | None) -> Tensor:
    """Return the attention weights (B, H, T, S) of ``scores`` (B, H, T, S).

    ``blocked`` (B, T, S) is True where a query must not see a key; None means that every query sees every key.
    """
    if blocked is None:
        return scores.softmax(dim=-1)
    blocked = blocked[:, None]
    # The second fill gives a query that sees no key weights of 0. Otherwise the query would get the mean of all values.
    return scores.masked_fill(blocked, -10000.0).softmax(dim=-1).masked_fill(blocked, 0.0)


def relative_shift(x: Tensor) -> Tensor:
    """Shift each row of ``x`` to the left: (B, H, T, S + T - 1) -> (B, H, T, S + T - 1).

    Column p of row t becomes column p - (T - 1 - t).
    """
    b, h, t, n = x.size()
    return pad(x, (1, 0)).view(b, h, -1, t)[:, :, 1:].reshape(b, h, t, n)
