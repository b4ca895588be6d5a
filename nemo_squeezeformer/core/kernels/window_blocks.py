"""Attention over windows for inference, one block of queries after another.

At any length of the audio, the computation needs only the memory for the scores of a single block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands
from ..frames.masks import Frames
from .windows import AllWindows, along_the_band, block_of

# Minimum number of queries in a block. The scores of a block fit in the cache of a CPU. On a GPU, a block keeps the GPU
# busy.
LEAST = {"cpu": 64, "cuda": 512}


class WindowsInTurn(AllWindows):
    """A kernel with the results of ``AllWindows``.

    The keys of a window are a slice of all keys, so no keys are copied.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d).

        ``operands.p`` contains only the positions in the window: (1, H, left + right + 1, d).
        """
        content, k, v, position, p, tokens = operands
        assert position is not None and p is not None
        (b, h, t, d), left, right = content.shape, frames.context.left, frames.context.right
        scale = 1.0 / math.sqrt(d)
        p, k = scale * p.transpose(-2, -1), k.transpose(-2, -1)
        attended = v.new_empty(b, t, h, d).transpose(1, 2)  # the memory layout that the next projection reads
        size = block_of(frames.context, LEAST.get(v.device.type, 64))
        for first in range(0, t, size):
            stop = min(first + size, t)
            start, end = max(first - left, 0), min(stop + right, t)
            # The part of the window from the first frame to the last frame of the batch.
            within = slice(start - first + left, end - first + left)
            scores = along_the_band(position[:, :, first:stop] @ p)[..., within]
            scores = add_product(scores, content[:, :, first:stop], k[..., start:end], scale)
            if frames.padded:
                scores = scores.masked_fill(frames.padding[:, None, None, start:end], -10000.0)
            values = v[:, :, start:end]
            if tokens is not None:
                scores = torch.cat([tokens.scores[:, :, first:stop], scores], dim=-1)
                values = torch.cat([tokens.values, values], dim=2)
            attended[:, :, first:stop] = dropout(scores.softmax(dim=-1)) @ values
        return attended.masked_fill_(frames.padding[:, None, :, None], 0.0) if frames.padded else attended


def add_product(x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return ``x + scale * a @ b`` of tensors (B, H, ..., ...), computed in one operation."""
    return torch.baddbmm(x.flatten(0, 1), a.flatten(0, 1), b.flatten(0, 1), alpha=scale).view(x.shape)
