"""Attention with relative positions as ONNX Runtime is fast at it, and for long audio a loop over blocks of queries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames

LARGEST = 2**22  # scores at a time; more are computed in blocks
BLOCK = 256  # queries


class GraphKernel(PlainKernel):
    """What ``PlainKernel`` gives, for whole utterances in inference.

    Queries are scaled in the place of scores, one sum masks keys in the place of two choices, and the relative shift
    needs no padding. In a graph the choice between a block and several is an ``If``, the blocks are a ``Loop``.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d)"""
        content, k, v, position, p, _ = operands
        if position is None or p is None:
            return super().__call__(operands, frames, dropout)
        scale = math.sqrt(content.size(-1))
        content, position, k = content / scale, position / scale, k.transpose(-2, -1)
        p = pad(p, (0, 0, 0, 1)).transpose(-2, -1)  # a column more, or the shift of a single frame had none
        t, s = content.size(2), v.size(2)
        unseen = frames.unseen(0, t, 0, s)  # (B, 1, S), or (B, T, S) where a context limits what frames see
        if unseen is None:
            unseen = torch.zeros_like(frames.absent)[:, None]
        mask = unseen[:, None].to(content.dtype) * -10000.0
        if frames.context == Context():
            attended = blocks(content, position, k, v, p, mask, LARGEST, BLOCK)
        else:
            attended = block(content, position, k, v, p, mask)
        return attended.masked_fill(frames.absent[:, None, frames.past :, None], 0.0)


@torch.jit.script
def block(content: Tensor, position: Tensor, k: Tensor, v: Tensor, p: Tensor, mask: Tensor) -> Tensor:
    """k: (B, H, d, S), p: (1, H, d, S + T), mask: (B, 1, 1 or T, S), the others as above"""
    b, h, t, n = content.size(0), content.size(1), content.size(2), p.size(3)
    scores = (position @ p).reshape(b, h, t * n)
    # Column j of row i is column t - 1 - i + j: as far from the one above it as rows would be that are one shorter.
    scores = scores[:, :, t - 1 : t - 1 + t * (n - 1)].reshape(b, h, t, n - 1)[:, :, :, : v.size(2)]
    return (content @ k + scores + mask).softmax(dim=-1) @ v


@torch.jit.script
def blocks(
    content: Tensor, position: Tensor, k: Tensor, v: Tensor, p: Tensor, mask: Tensor, largest: int, size: int
) -> Tensor:
    """The same with mask: (B, 1, 1, S); where scores are more than ``largest``, by ``size`` queries at a time."""
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
