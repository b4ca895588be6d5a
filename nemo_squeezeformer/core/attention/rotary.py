"""Self-attention with rotary positions (RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..frames.masks import Frames
from ..frames.state import LayerState, finite, with_left_context
from .kernel import PlainKernel
from .multi_head import MultiHeadAttention
from .rotation import parts, rotary_width, turned


class RotaryAttention(MultiHeadAttention):
    """Attention whose queries and keys are rotated by the position of their frame.

    The score of a query and a key depends on the content of both and on the distance between both. The weights are the
    weights of ``MultiHeadAttention``: positions have no weights.

    A stream stores the values of past frames, and the keys of past frames before the rotation. Therefore every step can
    count its frames from 0, and the angles of a long stream stay small and exact. With stored inputs, every step would
    project the past frames again.

    Args:
        d_model: Width D of the input and the output.
        n_heads: Number of heads H.
        dropout: Dropout rate of the attention weights.
        use_bias: If True, the projections have biases.
        kernel: Attention kernel, as in ``MultiHeadAttention``.
        rotary_fraction: Fraction of each head that is rotated. An odd number of values is rounded down.
    """

    model = "rope"
    remembered = 2

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel: PlainKernel | None = None,
        rotary_fraction: float = 1.0,
    ):
        super().__init__(d_model, n_heads, dropout, use_bias, kernel)
        self.parts = parts(d_model // n_heads, rotary_width(d_model, n_heads, rotary_fraction))  # sizes in a head

    def forward(
        self, x: Tensor, frames: Frames, positions: Tensor | None = None, state: LayerState | None = None
    ) -> Tensor:
        """Apply attention: x (B, T, D), positions (S, 2D / H) -> (B, T, D)."""
        assert positions is not None
        q, k, v = self.projected(x, x)
        if state is not None:
            k, v = self.with_past(k, v, frames, state)
        if frames.several_chunks:  # a NaN must not reach the queries that do not see the frame of the NaN
            v = finite(v)
        q, k = turned(q, positions[frames.past :], self.parts), turned(k, positions, self.parts)
        attended = self.attend(q, k, v, frames, None)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def with_past(self, k: Tensor, v: Tensor, frames: Frames, state: LayerState) -> tuple[Tensor, Tensor]:
        """Prepend the keys and values that a stream has stored: two (B, H, T, d) -> two (B, H, S, d)."""
        new = torch.cat([k, v], dim=1).transpose(1, 2).flatten(2)  # (B, T, 2D)
        seen, state.attention = with_left_context(new, state.attention, dim=1, advance=frames.advance)
        k, v = seen.chunk(2, dim=-1)
        return self.heads(k), self.heads(v)
