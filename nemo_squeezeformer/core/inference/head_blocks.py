"""Attention with many keys, computed one head at a time, for CPUs on which oneDNN is faster than MKL.

The computation uses oneDNN, which multiplies one pair of matrices at a time.
"""

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

MANY = 512  # with fewer keys, computing all heads at once is faster
QUERIES = 256  # number of queries in a block


class HeadBlocks(QueryBlocks):
    """A kernel that returns the same values as ``QueryBlocks``, and is faster for many keys in float32 on a CPU.

    The faster computation skips padding. ``has_many_keys`` decides between the faster computation and the computation
    of ``QueryBlocks``.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
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
                    # oneDNN computes 16 columns at a time. The head size d is not a multiple of 16, so the columns of
                    # the product are the queries.
                    attended[utterance, head, first:stop] = product(values, scores).t()
        return attended


def by_heads(kernel: PlainKernel) -> PlainKernel:
    """Return a copy of ``kernel`` that uses ``HeadBlocks`` instead of ``QueryBlocks`` for inference.

    A kernel that does not use ``QueryBlocks`` for inference is returned unchanged.
    """
    if not isinstance(kernel, ByUse) or type(kernel.inference) is not QueryBlocks:  # for example the kernel of windows
        return kernel
    kernel = copy.copy(kernel)
    kernel.inference = HeadBlocks()
    return kernel


def has_many_keys(content: Tensor, k: Tensor, frames: Frames) -> bool:
    """Return True if ``HeadBlocks`` is faster than ``QueryBlocks``.

    ``HeadBlocks`` is faster for many keys that are all within reach, in float32, on a CPU on which oneDNN is faster
    than MKL.
    """
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
