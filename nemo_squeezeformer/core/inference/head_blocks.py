"""Attention to many frames head by head: oneDNN, where it is the faster library, multiplies one pair at a time."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands, PlainKernel
from ..cpu.linear import is_onednn_faster
from ..cpu.products import product
from ..frames.masks import Frames
from ..kernels.choice import ByUse
from ..kernels.query_blocks import QueryBlocks, diagonals

MANY = 512  # keys; fewer are faster all heads at once
QUERIES = 256  # in a block


class HeadBlocks(QueryBlocks):
    """What ``QueryBlocks`` gives, on a CPU in float32 without what padding would compute."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d)"""
        content, k, v, position, p, _ = operands
        b, h, t, d = content.shape
        if not has_many_keys(content, k, frames) or position is None or p is None:
            return super().__call__(operands, frames, dropout)
        scale = 1.0 / math.sqrt(d)
        attended = content.new_zeros(b, t, h, d).transpose(1, 2)
        for head in range(h):
            positions = p[0, head].contiguous()
            for utterance, length in enumerate(frames.lengths.tolist()):
                length = min(length, t)
                at = utterance, head, slice(length)
                by_content, by_position = content[at] * scale, position[at] * scale
                keys, values = k[at].contiguous(), v[at].t().contiguous()
                for first in range(0, length, QUERIES):
                    stop = min(first + QUERIES, length)
                    seen = positions[t - stop : t - first + length - 1]
                    shifted = product(by_position[first:stop], seen)
                    scores = product(by_content[first:stop], keys)
                    scores += diagonals(shifted[None, None], length)[0, 0]
                    torch.softmax(scores, dim=-1, out=scores)
                    # Columns go by 16, which d is no multiple of: queries are the columns here.
                    attended[utterance, head, first:stop] = product(values, scores).t()
        return attended


def by_heads(kernel: PlainKernel) -> PlainKernel:
    """``kernel`` with this form of its own for inference; one that was chosen by name stays."""
    if not isinstance(kernel, ByUse) or type(kernel.inference) is not QueryBlocks:  # windows stay theirs
        return kernel
    kernel = copy.copy(kernel)
    kernel.inference = HeadBlocks()
    return kernel


def has_many_keys(content: Tensor, k: Tensor, frames: Frames) -> bool:
    """Whether there are so many keys, all in reach, on a CPU that oneDNN suits."""
    context = frames.context
    return (
        k.size(2) >= MANY
        and frames.past == 0
        and context.left < 0
        and context.right < 0
        and content.device.type == "cpu"
        and content.dtype == torch.float32
        and is_onednn_faster()
    )
