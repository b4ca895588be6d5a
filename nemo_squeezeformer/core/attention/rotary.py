"""Self-attention with rotary positions (RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..frames.masks import Frames
from ..frames.state import LayerState, finite, with_left_context
from .multi_head import MultiHeadAttention
from .rotation import turned


class RotaryAttention(MultiHeadAttention):
    """Attention whose queries and keys are turned by the position of their frame.

    The score of a query and a key depends on the content of both and on the distance between both. The weights are the
    weights of ``MultiHeadAttention``: positions have no weights.

    A stream remembers the keys and the values of past frames. The keys are remembered before they are turned, so that
    every step can count its frames from 0. Angles of a long stream therefore stay small and exact.
    """

    model = "rope"
    remembered = 2

    def forward(
        self, x: Tensor, frames: Frames, positions: Tensor | None = None, state: LayerState | None = None
    ) -> Tensor:
        """Apply attention: x (B, T, D), positions (S, number of turned values) -> (B, T, D)."""
        assert positions is not None
        q, k, v = self.projected(x, x)
        if state is not None:
            k, v = self.with_past(k, v, frames, state)
        if frames.several_chunks:  # a NaN must not reach the queries that do not see the frame of the NaN
            v = finite(v)
        attended = self.attend(turned(q, positions[frames.past :]), turned(k, positions), v, frames, None)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def with_past(self, k: Tensor, v: Tensor, frames: Frames, state: LayerState) -> tuple[Tensor, Tensor]:
        """Prepend the keys and values that a stream remembers: two (B, H, T, d) -> two (B, H, S, d)."""
        new = torch.cat([k, v], dim=1).transpose(1, 2).flatten(2)  # (B, T, 2D)
        seen, state.attention = with_left_context(new, state.attention, dim=1, advance=frames.advance)
        k, v = seen.chunk(2, dim=-1)
        return self.heads(k), self.heads(v)
