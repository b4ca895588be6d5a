"""PyTorch's fused attention without position scores in a limited context, with all blocks of queries at once.

The kernel is for training on a GPU: it calls PyTorch's function once, and needs no mask of all queries and all keys.
The blocks are the blocks of ``windows.py``. A block consists of whole chunks, so all blocks have the same mask inside
the context.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands
from ..dropout import rate_of
from ..frames.context import Context
from ..frames.masks import Frames
from .sdpa import SDPA, masked
from .windows import Windows, block_of


class FusedWindows(SDPA):
    """A kernel with the results of ``PlainKernel`` for operands without position scores.

    The memory grows linearly with T. ``SDPA`` computes a context that is unlimited on one side, and a step of a stream.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        context = frames.context
        if context.left < 0 or context.right < 0 or frames.past:
            return super().__call__(operands, frames, dropout)
        q, k, v = operands[:3]
        windows = Windows(q.size(2), context.left, context.right, whole_chunks(context))
        mask = masked(None, unseen(windows, context, frames.padding), q)
        rate = rate_of(dropout)
        seen = self.fused(folded(windows.queries(q)), folded(windows.keys(k)), folded(windows.keys(v)), mask, rate)
        attended = windows.joined(seen.view(q.size(0), -1, *seen.shape[1:]).transpose(1, 2))
        return attended.masked_fill(frames.padding[:, None, :, None], 0.0)


def folded(x: Tensor) -> Tensor:
    """Make each block an utterance: (B, H, N, Q, d) -> (B * N, H, Q, d)."""
    return x.transpose(1, 2).flatten(0, 1)


def whole_chunks(context: Context) -> int:
    """Return the number of queries in a block, a multiple of the size of a chunk."""
    chunk, size = max(context.chunk, 1), block_of(context, least=32)
    return -(-size // chunk) * chunk


def unseen(windows: Windows, context: Context, padding: Tensor) -> Tensor:
    """Return the mask of the blocks of all utterances: padding (B, T) -> (B * N, Q, W).

    The mask is True where a query does not see a key.
    """
    query = torch.arange(windows.block, device=padding.device)
    key = torch.arange(-windows.left, windows.block + windows.right, device=padding.device)
    within = context.reach(query, key)  # (Q, W)
    assert within is not None
    absent = windows.absent(padding)[:, 0]  # (B, N, 1, W)
    return (absent | ~within).flatten(0, 1)
