"""Exact attention in blocks of queries, each against the keys in its reach: never all queries with all keys.

A block needs the positions from its last query before the first key to its first query after the last: half of all.
What the relative shift moves stays where it is, and is read along its diagonals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands, PlainKernel
from ..frames.masks import Frames

LEAST, MOST = 64, 256  # queries in a block on a CPU
CACHED, FILLING = 2**20, 2**26  # scores of a block: those that stay in a CPU's cache, those that keep a GPU busy


class QueryBlocks(PlainKernel):
    """What ``PlainKernel`` gives, for inference, in memory that grows with T and not with its square."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d)"""
        content, k, v, position, p, _ = operands
        b, h, t, d = content.size()
        s = k.size(2)
        content = content / math.sqrt(d)
        position = None if position is None else position / math.sqrt(d)
        k = k.transpose(-2, -1)
        attended = v.new_empty(b, t, h, d).transpose(1, 2)  # as the projection that follows reads it
        size = queries_of_block(b * h * s, content.device)
        for first in range(0, t, size):
            stop = min(first + size, t)
            start, end = reach(frames, first, stop, s)
            scores = content[:, :, first:stop] @ k[..., start:end]
            if position is not None and p is not None:
                shifted = position[:, :, first:stop] @ positions(p, frames, first, stop, start, end)
                scores += diagonals(shifted, end - start)
            unseen = frames.unseen(first, stop, start, end)
            if unseen is not None:
                scores.masked_fill_(unseen[:, None], -10000.0)
            attended[:, :, first:stop] = dropout(scores.softmax(dim=-1)) @ v[:, :, start:end]
        if frames.padded:
            attended.masked_fill_(frames.absent[:, None, frames.past :, None], 0.0)
        return attended


def queries_of_block(keys: int, device: torch.device) -> int:
    """How many queries a block has, of each utterance and head, where a query of all of them has so many ``keys``."""
    if device.type == "cpu":
        return min(max(CACHED // keys, LEAST), MOST)
    return max(FILLING // keys, LEAST)


def reach(frames: Frames, first: int, stop: int, s: int) -> tuple[int, int]:
    """Which of ``s`` keys queries ``first`` to the one before ``stop`` reach: the first, and the one after the last."""
    start, end = frames.context.keys(first, stop)
    return max(start + frames.past, 0), min(end + frames.past, s)


def positions(p: Tensor, frames: Frames, first: int, stop: int, start: int, end: int) -> Tensor:
    """(1, H, S + T - 1, d) -> (1, H, d, N): that of the last query and the first key, down to the other way round."""
    zero = p.size(2) - (frames.absent.size(1) - frames.past)  # S - 1: the row of a key at its query's own place
    farthest = frames.past + stop - 1 - start
    nearest = frames.past + first - (end - 1)
    return p[:, :, zero - farthest : zero - nearest + 1].transpose(-2, -1)


def diagonals(x: Tensor, keys: int) -> Tensor:
    """(B, H, T, T + S - 1) -> (B, H, T, S), a view: column j of row i is column T - 1 - i + j of ``x``."""
    b, h, t, n = x.size()
    return x.as_strided((b, h, t, keys), (x.stride(0), x.stride(1), n - 1, 1), t - 1)
