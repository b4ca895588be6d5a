"""Multi-head self-attention, with relative positions (Transformer-XL, section 3.3) or without."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..dispatch import dispatched
from ..frames.masks import Frames
from ..frames.state import LayerState, with_left_context
from .kernel import Operands, PlainKernel


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over the frames within reach.

    ``kernel`` is the seam for other exact forms: everything before it is projection, everything after it is too.
    """

    model = "abs_pos"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel: PlainKernel | None = None,
    ):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
        self.n_heads, self.kernel = n_heads, kernel or PlainKernel()
        self.linear_q = nn.Linear(d_model, d_model, bias=use_bias)
        self.linear_k = nn.Linear(d_model, d_model, bias=use_bias)
        self.linear_v = nn.Linear(d_model, d_model, bias=use_bias)
        self.linear_out = nn.Linear(d_model, d_model, bias=use_bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, frames: Frames, positions: Tensor | None = None, state: LayerState | None = None
    ) -> Tensor:
        """x: (B, T, D), positions: (S + T - 1, D) or None -> (B, T, D)"""
        context = x
        if state is not None:
            context, state.attention = with_left_context(x, state.attention, dim=1, advance=frames.advance)

        attended = self.attended(x, context, frames, positions)  # (B, H, T, D / H)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    @dispatched
    def attended(self, x: Tensor, context: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """x: (B, T, D), context: (B, S, D) -> (B, H, T, D / H)"""
        q, k, v = self.projected(x, context)
        return self.attend(q, k, v, frames, positions)

    @dispatched
    def projected(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, T, D), context: (B, S, D) -> queries (B, H, T, D / H), keys and values (B, H, S, D / H)"""
        return (
            self.heads(self.linear_q(x)),
            self.heads(self.linear_k(context)),
            self.heads(self.linear_v(context)),
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k, v: (B, H, S, D / H) -> (B, H, T, D / H)"""
        return self.kernel(Operands(q, k, v), frames, self.dropout)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)"""
        b, t, d = x.size()
        return x.view(b, t, self.n_heads, d // self.n_heads).transpose(1, 2)


class RelPositionAttention(MultiHeadAttention):
    """Attention whose scores depend on the content of a key and on how far away it is.

    ``biases``: the pair (u, v) of one encoder for all its layers (``untie_biases=False``), or None for an own pair.
    """

    model = "rel_pos"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel: PlainKernel | None = None,
        biases: tuple[nn.Parameter, nn.Parameter] | None = None,
    ):
        super().__init__(d_model, n_heads, dropout, use_bias, kernel)
        self.linear_pos = nn.Linear(d_model, d_model, bias=False)
        self.pos_bias_u, self.pos_bias_v = biases or position_biases(d_model, n_heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k, v: (B, H, S, D / H), positions: (S + T - 1, D) -> (B, H, T, D / H)"""
        assert positions is not None
        p = self.heads(self.linear_pos(positions)[None])  # (1, H, S + T - 1, D / H)
        content, position = q + self.pos_bias_u[:, None], q + self.pos_bias_v[:, None]
        return self.kernel(Operands(content, k, v, position, p), frames, self.dropout)


def position_biases(d_model: int, n_heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """The learned u and v of Transformer-XL, both (H, D / H), which stand in for the query's own position."""
    if d_model % n_heads:
        raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
    zeros = torch.zeros(n_heads, d_model // n_heads)
    return nn.Parameter(zeros), nn.Parameter(zeros.clone())
