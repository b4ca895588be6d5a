"""Multi-head self-attention, with relative positions (Transformer-XL, section 3.3) or without."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .frames import Frames
from .streaming import LayerState, with_left_context


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over the frames within reach.

    ``attend`` is the seam for other exact forms: everything before it is projection, everything after it is too.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, left_context: int = -1):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
        self.n_heads, self.left_context = n_heads, left_context
        self.linear_q = nn.Linear(d_model, d_model)
        self.linear_k = nn.Linear(d_model, d_model)
        self.linear_v = nn.Linear(d_model, d_model)
        self.linear_out = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, frames: Frames, positions: Tensor | None = None, state: LayerState | None = None
    ) -> Tensor:
        """x: (B, T, D), positions: (2S - 1, D) or None -> (B, T, D)"""
        context = x
        if state is not None:
            context, state.attention = with_left_context(x, state.attention, dim=1, keep=self.left_context)

        q = self.heads(self.linear_q(x))
        k = self.heads(self.linear_k(context))
        v = self.heads(self.linear_v(context))
        attended = self.attend(q, k, v, frames.blocked[:, None], positions)  # (B, H, T, D / H)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k, v: (B, H, S, D / H), blocked: (B, 1, T, S) -> (B, H, T, D / H)"""
        scores = self.scores(q, k, positions) / math.sqrt(q.size(-1))  # (B, H, T, S)
        # Twice: a query that may see nothing must get zeros, not the mean of what it may not see.
        weights = scores.masked_fill(blocked, -10000.0).softmax(dim=-1).masked_fill(blocked, 0.0)
        return self.dropout(weights) @ v

    def scores(self, q: Tensor, k: Tensor, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k: (B, H, S, D / H) -> (B, H, T, S)"""
        return q @ k.transpose(-2, -1)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)"""
        b, t, d = x.size()
        return x.view(b, t, self.n_heads, d // self.n_heads).transpose(1, 2)


class RelPositionAttention(MultiHeadAttention):
    """Attention whose scores depend on the content of a key and on how far away it is.

    ``biases``: the pair (u, v) of one encoder for all its layers (``untie_biases=False``), or None for an own pair.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        left_context: int = -1,
        biases: tuple[nn.Parameter, nn.Parameter] | None = None,
    ):
        super().__init__(d_model, n_heads, dropout, left_context)
        self.linear_pos = nn.Linear(d_model, d_model, bias=False)
        self.pos_bias_u, self.pos_bias_v = biases or position_biases(d_model, n_heads)

    def scores(self, q: Tensor, k: Tensor, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k: (B, H, S, D / H), positions: (2S - 1, D) -> (B, H, T, S)"""
        assert positions is not None
        p = self.heads(self.linear_pos(positions)[None])  # (1, H, 2S - 1, D / H)
        content = (q + self.pos_bias_u[:, None]) @ k.transpose(-2, -1)
        position = relative_shift((q + self.pos_bias_v[:, None]) @ p.transpose(-2, -1))
        return content + position[..., : k.size(2)]


def position_biases(d_model: int, n_heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """The learned u and v of Transformer-XL, both (H, D / H), which stand in for the query's own position."""
    if d_model % n_heads:
        raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
    zeros = torch.zeros(n_heads, d_model // n_heads)
    return nn.Parameter(zeros), nn.Parameter(zeros.clone())


def relative_shift(x: Tensor) -> Tensor:
    """(B, H, T, 2S - 1) -> same: column p of row t becomes column p - (T - 1 - t)."""
    b, h, t, n = x.size()
    return pad(x, (1, 0)).view(b, h, -1, t)[:, :, 1:].reshape(b, h, t, n)


def build_attention(
    model: str,
    d_model: int,
    n_heads: int,
    dropout: float = 0.0,
    left_context: int = -1,
    biases: tuple[nn.Parameter, nn.Parameter] | None = None,
) -> MultiHeadAttention:
    """The attention that ``self_attention_model`` names in NeMo's recipes.

    Raises:
        ValueError: for another name, or heads that do not divide ``d_model``.
    """
    if model == "rel_pos":
        return RelPositionAttention(d_model, n_heads, dropout, left_context, biases)
    if model == "abs_pos":
        return MultiHeadAttention(d_model, n_heads, dropout, left_context)
    raise ValueError(f"self_attention_model={model!r}: expected 'rel_pos' or 'abs_pos'")
