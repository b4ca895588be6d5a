"""Multi-head self-attention, with or without relative positions (Transformer-XL, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..dispatch import dispatched
from ..frames.masks import Frames
from ..frames.state import LayerState, finite, with_left_context
from .kernel import Operands, PlainKernel


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of each frame to the frames that the masks of ``frames`` allow.

    Args:
        d_model: Width D of the input and the output.
        n_heads: Number of heads H.
        dropout: Dropout rate of the attention weights.
        use_bias: If True, the projections have biases.
        kernel: Attention kernel, which computes the attended values from queries, keys and values. None means
            ``PlainKernel``. All kernels compute the same equation.
    """

    model = "abs_pos"
    remembered = 1  # number of vectors of width D that a stream remembers for each frame: the inputs of attention

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
        """Apply attention: x (B, T, D), positions (S + T - 1, D) or None -> (B, T, D)."""
        context = x
        if state is not None:
            context, state.attention = with_left_context(x, state.attention, dim=1, advance=frames.advance)

        attended = self.attended(x, context, frames, positions)  # (B, H, T, D / H)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    @dispatched
    def attended(self, x: Tensor, context: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Return the attended values: x (B, T, D), context (B, S, D) -> (B, H, T, D / H).

        The queries come from ``x``, and the keys come from ``context``.
        """
        q, k, v = self.projected(x, context)
        if frames.several_chunks:  # a NaN must not reach the queries that do not see the frame of the NaN
            v = finite(v)
        return self.attend(q, k, v, frames, positions)

    @dispatched
    def projected(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries of ``x`` (B, T, D), and the keys and values of ``context`` (B, S, D).

        The shape of the queries is (B, H, T, D / H). The shape of the keys and the values is (B, H, S, D / H).
        """
        return (
            self.heads(self.linear_q(x)),
            self.heads(self.linear_k(context)),
            self.heads(self.linear_v(context)),
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Return the attended values: q (B, H, T, D / H), k and v (B, H, S, D / H) -> (B, H, T, D / H)."""
        return self.kernel(Operands(q, k, v), frames, self.dropout)

    def heads(self, x: Tensor) -> Tensor:
        """Split the channels into heads: (B, T, D) -> (B, H, T, D / H)."""
        b, t, d = x.size()
        return x.view(b, t, self.n_heads, d // self.n_heads).transpose(1, 2)


class RelPositionAttention(MultiHeadAttention):
    """Attention whose scores depend on the content of the key and on the distance between the query and the key.

    Args:
        d_model: Width D of the input and the output.
        n_heads: Number of heads H.
        dropout: Dropout rate of the attention weights.
        use_bias: If True, the projections of queries, keys, values and outputs have biases.
        kernel: Attention kernel, as in ``MultiHeadAttention``.
        biases: The pair of position biases (u, v) that all layers share (``untie_biases=False``). None gives this layer
            a pair of its own.
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
        """Return the attended values (B, H, T, D / H).

        Shapes: q (B, H, T, D / H), k and v (B, H, S, D / H), positions (S + T - 1, D).
        """
        assert positions is not None
        p = self.heads(self.linear_pos(positions)[None])  # (1, H, S + T - 1, D / H)
        content, position = q + self.pos_bias_u[:, None], q + self.pos_bias_v[:, None]
        return self.kernel(Operands(content, k, v, position, p), frames, self.dropout)


def position_biases(d_model: int, n_heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the learned position biases u and v of Transformer-XL, each (H, D / H), initialized with zeros."""
    if d_model % n_heads:
        raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
    zeros = torch.zeros(n_heads, d_model // n_heads)
    return nn.Parameter(zeros), nn.Parameter(zeros.clone())
