"""Exact attention in blocks of queries.

Each block uses only the keys within reach of the queries of the block. The scores of all queries and all keys never
exist at once. A block needs the positions from (last query, first key) to (first query, last key), about half of all
positions. The relative shift does not copy the scores: a view reads the scores along the diagonals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands, PlainKernel
from ..frames.masks import Frames

LEAST, MOST = 64, 256  # minimum and maximum number of queries in a block on a CPU
# Number of scores of a block on a CPU and on a GPU. CACHED scores fit in the cache of a CPU. FILLING scores keep a GPU
# busy.
CACHED, FILLING = 2**20, 2**26


class QueryBlocks(PlainKernel):
    """A kernel for inference. It returns the same values as ``PlainKernel``.

    The memory grows with T instead of T squared.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        content, k, v, position, p, _ = operands
        b, h, t, d = content.size()
        s = k.size(2)
        content = content / math.sqrt(d)
        position = None if position is None else position / math.sqrt(d)
        k = k.transpose(-2, -1)
        attended = v.new_empty(b, t, h, d).transpose(1, 2)  # the memory layout that the next projection reads
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
    """Return the number of queries in a block.

    Args:
        keys: Number of scores of one query in all utterances and all heads: B * H * S.
        device: Device of the queries.
    """
    if device.type == "cpu":
        return min(max(CACHED // keys, LEAST), MOST)
    return max(FILLING // keys, LEAST)


def reach(frames: Frames, first: int, stop: int, s: int) -> tuple[int, int]:
    """Return the keys that the queries ``first`` to ``stop`` - 1 reach, as a range of indices (start, end).

    ``s`` is the number of keys. Key ``end`` - 1 is the last key within reach.
    """
    start, end = frames.context.keys(first, stop)
    return max(start + frames.past, 0), min(end + frames.past, s)


def positions(p: Tensor, frames: Frames, first: int, stop: int, start: int, end: int) -> Tensor:
    """Return the position encodings of a block: (1, H, S + T - 1, d) -> (1, H, d, N).

    The block has the queries ``first`` to ``stop`` - 1 and the keys ``start`` to ``end`` - 1. The first of the N
    positions is the position of the last query and the first key. The last position is the position of the first query
    and the last key.
    """
    zero = p.size(2) - (frames.absent.size(1) - frames.past)  # S - 1, the row of distance 0
    farthest = frames.past + stop - 1 - start
    nearest = frames.past + first - (end - 1)
    return p[:, :, zero - farthest : zero - nearest + 1].transpose(-2, -1)


def diagonals(x: Tensor, keys: int) -> Tensor:
    """Return a view of ``x`` along the diagonals of ``x``: (B, H, T, T + S - 1) -> (B, H, T, S).

    Column j of row i is column T - 1 - i + j of ``x``. The argument ``keys`` is S.
    """
    b, h, t, n = x.size()
    return x.as_strided((b, h, t, keys), (x.stride(0), x.stride(1), n - 1, 1), t - 1)
