"""Attention over windows, all at once: for gradients, and for graphs that must serve any length.

The queries go in blocks, each against the window of keys that its frames reach (Longformer, Beltagy et al. 2020).
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
    """What ``PlainKernel`` gives under the band mask of ``frames.context``, in linear time and memory.

    Of positions it wants those in the window alone, left ... -right.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d); of positions, ``p`` has those in the window alone: (1, H, left + right + 1, d)"""
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
    """T frames as N blocks of Q queries, the last filled up, each with the W = left + Q + right keys in their reach."""

    t: int
    left: int
    right: int
    block: int

    @classmethod
    def of(cls, context: Context, t: int) -> Windows:
        return cls(t, context.left, context.right, block_of(context, least=32))

    @property
    def filling(self) -> int:
        return (self.t + self.block - 1) // self.block * self.block - self.t

    def queries(self, x: Tensor) -> Tensor:
        """(B, H, T, d) -> (B, H, N, Q, d)"""
        x = pad(x, (0, 0, 0, self.filling))
        return x.view(*x.shape[:2], -1, self.block, x.size(-1))

    def keys(self, x: Tensor) -> Tensor:
        """(B, H, T, d) -> (B, H, N, W, d)"""
        x = pad(x, (0, 0, self.left, self.right + self.filling))
        return overlapping(x, 2, self.left + self.block + self.right, self.block)

    def absent(self, padding: Tensor) -> Tensor:
        """(B, T) True at padding -> (B, 1, N, 1, W) True where the key is padding, before all frames or after them."""
        x = pad(padding, (self.left, self.right + self.filling), value=True)
        return overlapping(x, 1, self.left + self.block + self.right, self.block)[:, None, :, None]

    def joined(self, x: Tensor) -> Tensor:
        """(B, H, N, Q, d) -> (B, H, T, d)"""
        return x.flatten(2, 3)[:, :, : self.t]


def along_the_band(x: Tensor) -> Tensor:
    """(..., Q, N) -> (..., Q, N + Q - 1): column m of row i becomes column i + m; others, out of reach, are -inf."""
    q, n = x.size(-2), x.size(-1)
    return pad(x, (0, q), value=-math.inf).flatten(-2)[..., :-q].view(*x.shape[:-2], q, n + q - 1)


def block_of(context: Context, least: int) -> int:
    """A quarter of the window: few scores are out of reach, and keys do not go to many blocks."""
    return max((context.left + context.right) // 4, least)
