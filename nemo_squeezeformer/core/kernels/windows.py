"""Attention over windows, with all windows at once.

The kernel is for inputs with gradients and for recorded graphs. A recorded graph must work for any length. The queries
are divided into blocks. Each block uses the window of keys within reach of the queries of the block (Longformer,
Beltagy et al. 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..attention.kernel import Operands, PlainKernel
from ..frames.context import Context
from ..frames.masks import Frames, overlapping


class AllWindows(PlainKernel):
    """A kernel with the results of ``PlainKernel`` for the band mask of ``frames.context``.

    Time and memory grow linearly with T. The kernel needs only the encodings of the positions left to -right.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d).

        ``operands.p`` contains only the positions in the window: (1, H, left + right + 1, d).
        """
        content, k, v, position, p, tokens = operands
        assert position is not None and p is not None
        windows, scale = Windows.of(frames.context, content.size(2)), 1.0 / math.sqrt(content.size(-1))
        scores = windows.queries(scale * content) @ windows.keys(k).transpose(-2, -1)  # (B, H, N, Q, W)
        scores = scores + along_the_band(windows.queries(scale * position @ p.transpose(-2, -1)))
        scores = scores.masked_fill(windows.absent(frames.padding), -10000.0)
        if tokens is None:
            attended = dropout(scores.softmax(dim=-1)) @ windows.keys(v)
        else:
            g = tokens.values.size(2)
            weights = dropout(torch.cat([windows.queries(tokens.scores), scores], dim=-1).softmax(dim=-1))
            attended = weights[..., g:] @ windows.keys(v) + weights[..., :g] @ tokens.values[:, :, None]
        return windows.joined(attended).masked_fill(frames.padding[:, None, :, None], 0.0)


@dataclass(frozen=True)
class Windows:
    """The division of T frames into N blocks of Q queries, each with a window of W = left + Q + right keys.

    The last block is padded to Q queries.
    """

    t: int
    left: int
    right: int
    block: int

    @classmethod
    def of(cls, context: Context, t: int) -> Windows:
        """Return the division of ``t`` frames for the window of ``context``."""
        return cls(t, context.left, context.right, block_of(context, least=32))

    @property
    def filling(self) -> int:
        """The number of padding queries in the last block."""
        return (self.t + self.block - 1) // self.block * self.block - self.t

    def queries(self, x: Tensor) -> Tensor:
        """Divide queries into blocks: (B, H, T, d) -> (B, H, N, Q, d)."""
        x = pad(x, (0, 0, 0, self.filling))
        return x.view(*x.shape[:2], -1, self.block, x.size(-1))

    def keys(self, x: Tensor) -> Tensor:
        """Return the window of keys of each block: (B, H, T, d) -> (B, H, N, W, d)."""
        x = pad(x, (0, 0, self.left, self.right + self.filling))
        return overlapping(x, 2, self.left + self.block + self.right, self.block)

    def absent(self, padding: Tensor) -> Tensor:
        """Return the mask of keys without a valid frame: (B, T) -> (B, 1, N, 1, W).

        ``padding`` is True at padding. The mask is True for padding, and for keys before frame 0 or after frame T - 1.
        """
        x = pad(padding, (self.left, self.right + self.filling), value=True)
        return overlapping(x, 1, self.left + self.block + self.right, self.block)[:, None, :, None]

    def joined(self, x: Tensor) -> Tensor:
        """Join the blocks: (B, H, N, Q, d) -> (B, H, T, d)."""
        return x.flatten(2, 3)[:, :, : self.t]


def along_the_band(x: Tensor) -> Tensor:
    """Shift row i by i columns to the right: (..., Q, N) -> (..., Q, N + Q - 1).

    All other columns of a row contain -inf, because the keys of these columns are out of reach of the query.
    """
    q, n = x.size(-2), x.size(-1)
    return pad(x, (0, q), value=-math.inf).flatten(-2)[..., :-q].view(*x.shape[:-2], q, n + q - 1)


def block_of(context: Context, least: int) -> int:
    """Return the number of queries in a block: a quarter of the window, but at least ``least``.

    With this size, few scores of a block are out of reach, and few windows contain the same key.
    """
    return max((context.left + context.right) // 4, least)
