"""Attention over windows, one after another: in memory for one of them, at any length; for inference."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands
from ..frames.masks import Frames
from .windows import AllWindows, along_the_band, block_of

LEAST = {"cpu": 64, "cuda": 512}  # queries in a block: their scores stay in a CPU's cache, or fill a GPU


class WindowsInTurn(AllWindows):
    """What ``AllWindows`` gives. A window's keys are a piece of all keys as they lie, so none are copied."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d); of positions, ``p`` has those in the window alone: (1, H, left + right + 1, d)"""
        content, k, v, position, p, tokens = operands
        assert position is not None and p is not None
        (b, h, t, d), left, right = content.shape, frames.context.left, frames.context.right
        scale = 1.0 / math.sqrt(d)
        p, k = scale * p.transpose(-2, -1), k.transpose(-2, -1)
        attended = v.new_empty(b, t, h, d).transpose(1, 2)  # as the projection that follows reads it
        size = block_of(frames.context, LEAST.get(v.device.type, 64))
        for first in range(0, t, size):
            stop = min(first + size, t)
            start, end = max(first - left, 0), min(stop + right, t)
            within = slice(start - first + left, end - first + left)  # the window without what lies around all frames
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
    """``x + scale * a @ b`` of (B, H, ..., ...) in one go."""
    return torch.baddbmm(x.flatten(0, 1), a.flatten(0, 1), b.flatten(0, 1), alpha=scale).view(x.shape)
