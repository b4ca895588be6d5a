"""PyTorch's fused attention without position scores, for inference.

On a CPU, a batch with padding is computed one utterance after another, so that padding takes no time. A limited context
is computed in blocks of queries. The memory grows linearly with T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands
from ..dropout import rate_of
from ..frames.masks import Frames
from .query_blocks import reach
from .sdpa import SDPA, masked

# Number of queries in a block. In a larger block, more keys are seen by only a few queries of the block.
QUERIES = 128


class FusedBlocks(SDPA):
    """A kernel with the results of ``PlainKernel`` for operands without position scores."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        q, k, v = operands[:3]
        if rate_of(dropout) > 0.0:
            return super().__call__(operands, frames, dropout)
        limited = frames.context.left >= 0 or frames.context.right >= 0
        if limited and q.size(2) > QUERIES:
            return self.in_blocks(q, k, v, frames)
        # With another device, the host would wait for the lengths. There, the call below has a mask of the keys.
        if frames.padded and not limited and not frames.past and q.device.type == "cpu":
            return self.in_turn(q, k, v, frames.lengths.tolist())
        return super().__call__(operands, frames, dropout)

    def in_turn(self, q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
        """Return the attended values (B, H, T, d), computed one utterance after another."""
        attended = empty(q).zero_()
        for i, n in enumerate(lengths):
            if n:
                at = slice(i, i + 1), slice(None), slice(n)
                attended[at] = self.fused(q[at], k[at], v[at], None)
        return attended

    def in_blocks(self, q: Tensor, k: Tensor, v: Tensor, frames: Frames) -> Tensor:
        """Return the attended values (B, H, T, d), computed one block of queries after another."""
        t, attended = q.size(2), empty(q)
        for first in range(0, t, QUERIES):
            stop = min(first + QUERIES, t)
            start, end = reach(frames, first, stop, k.size(2))
            mask = masked(None, frames.unseen(first, stop, start, end), q)
            attended[:, :, first:stop] = self.fused(q[:, :, first:stop], k[:, :, start:end], v[:, :, start:end], mask)
        return attended.masked_fill_(frames.absent[:, None, frames.past :, None], 0.0) if frames.padded else attended


def empty(x: Tensor) -> Tensor:
    """Return a tensor with the shape of ``x`` (B, H, T, d), in the memory layout (B, T, H, d) of the projections."""
    b, h, t, d = x.shape
    return torch.empty(b, t, h, d, dtype=x.dtype, device=x.device).transpose(1, 2)
