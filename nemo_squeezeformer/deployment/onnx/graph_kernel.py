"""Attention in operations that are fast in ONNX Runtime.

For long audio, the recorded graph loops over blocks of queries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames

LARGEST = 2**22  # maximum number of scores at once; more scores are computed in blocks
BLOCK = 256  # number of queries in a block


class GraphKernel(PlainKernel):
    """A kernel for inference, with the results of ``PlainKernel``.

    The kernel scales the queries instead of the scores. A single sum masks the keys, instead of two selections. The
    relative shift does not pad the scores. In a recorded graph, an ``If`` chooses between a single block and several
    blocks, and a ``Loop`` computes several blocks.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        content, k, v, position, p, _ = operands
        t, s, scale = content.size(2), v.size(2), math.sqrt(content.size(-1))
        content, k = content / scale, k.transpose(-2, -1)
        unseen = frames.unseen(0, t, 0, s)  # (B, 1, S), or (B, T, S) with a limited context
        if unseen is None:
            unseen = torch.zeros_like(frames.absent)[:, None]
        mask = unseen[:, None].to(content.dtype) * -10000.0
        unlimited = frames.context == Context()
        if position is None or p is None:
            by_content = (content, k, v, mask)
            attended = content_blocks(*by_content, LARGEST, BLOCK) if unlimited else content_block(*by_content)
        else:
            # Without this additional column, the shifted scores of a single frame would have no columns.
            p = pad(p, (0, 0, 0, 1)).transpose(-2, -1)
            given = (content, position / scale, k, v, p, mask)
            attended = blocks(*given, LARGEST, BLOCK) if unlimited else block(*given)
        return attended.masked_fill(frames.absent[:, None, frames.past :, None], 0.0)


@torch.jit.script
def block(content: Tensor, position: Tensor, k: Tensor, v: Tensor, p: Tensor, mask: Tensor) -> Tensor:
    """Return the attended values (B, H, T, d) of one block of queries.

    Shapes: content and position (B, H, T, d), k (B, H, d, S), v (B, H, S, d), p (1, H, d, S + T). The mask is
    (B, 1, 1, S) or (B, 1, T, S).
    """
    b, h, t, n = content.size(0), content.size(1), content.size(2), p.size(3)
    scores = (position @ p).reshape(b, h, t * n)
    # Column j of row i must be column t - 1 - i + j of the product. This column is i * n + t - 1 - i + j in the
    # flattened product, which is t - 1 + i * (n - 1) + j. So rows of n - 1 columns, beginning at t - 1, are the result.
    scores = scores[:, :, t - 1 : t - 1 + t * (n - 1)].reshape(b, h, t, n - 1)[:, :, :, : v.size(2)]
    return (content @ k + scores + mask).softmax(dim=-1) @ v


@torch.jit.script
def blocks(
    content: Tensor, position: Tensor, k: Tensor, v: Tensor, p: Tensor, mask: Tensor, largest: int, size: int
) -> Tensor:
    """Return the attended values (B, H, T, d) of all queries, for a mask (B, 1, 1, S).

    The shapes are the shapes of ``block``. If the number of scores is above ``largest``, compute ``size`` queries at a
    time.
    """
    t, s = content.size(2), v.size(2)
    if content.size(0) * content.size(1) * t * s <= largest:
        attended = block(content, position, k, v, p, mask)
    else:
        parts = []
        for first in range(0, t, size):
            stop = min(first + size, t)
            near = p[:, :, :, t - stop : t - first + s]
            parts.append(block(content[:, :, first:stop], position[:, :, first:stop], k, v, near, mask))
        attended = torch.cat(parts, dim=2)
    return attended


@torch.jit.script
def content_block(content: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return the attended values (B, H, T, d) of one block of queries, without scores by position.

    The shapes are the shapes of ``block``.
    """
    return (content @ k + mask).softmax(dim=-1) @ v


@torch.jit.script
def content_blocks(content: Tensor, k: Tensor, v: Tensor, mask: Tensor, largest: int, size: int) -> Tensor:
    """Return the attended values (B, H, T, d) of all queries, without scores by position, for a mask (B, 1, 1, S).

    The function computes blocks in the same way as ``blocks``.
    """
    t, s = content.size(2), v.size(2)
    if content.size(0) * content.size(1) * t * s <= largest:
        attended = content_block(content, k, v, mask)
    else:
        parts = []
        for first in range(0, t, size):
            queries = content[:, :, first : first + size]
            parts.append(content_block(queries, k, v, mask))
        attended = torch.cat(parts, dim=2)
    return attended
