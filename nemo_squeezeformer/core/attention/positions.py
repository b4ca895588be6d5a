"""Sinusoidal position encodings, relative (Transformer-XL, appendix B) and absolute (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..frames.masks import Frames


class RelativePositions(nn.Module):
    """Gives attention the encodings of the relative positions S-1 ... -(T-1); the frames stay as they are.

    ``encodings`` is the seam for other ways to them than to compute them each time.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.encodings: Callable[[int, int, Tensor], Tensor] = relative_encodings

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """x: (B, T, D) -> x, (S + T - 1, D)"""
        t = x.size(1)
        return x, self.dropout(self.encodings(frames.past + t - 1, 1 - t, x))


class LocalPositions(RelativePositions):
    """Gives attention the encodings of the relative positions within its window: left ... -right."""

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """x: (B, T, D) -> x, (left + right + 1, D)"""
        return x, self.dropout(self.encodings(frames.context.left, -frames.context.right, x))


class AbsolutePositions(nn.Module):
    """Adds the encodings of 0 ... T-1 to the frames; attention needs none of its own."""

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """x: (B, T, D) -> (B, T, D), None"""
        position = torch.arange(x.size(1), dtype=torch.float32, device=x.device)
        return x + sinusoids(position, x.size(-1)).to(x.dtype), None


def relative_encodings(first: int, last: int, x: Tensor) -> Tensor:
    """Those of the relative positions ``first``, ``first`` - 1, ... ``last``, of the width of ``x``: (N, D)"""
    position = torch.arange(first, last - 1, -1, dtype=torch.float32, device=x.device)
    return sinusoids(position, x.size(-1)).to(x.dtype)


def sinusoids(position: Tensor, d_model: int) -> Tensor:
    """(N,) -> (N, D) sine and cosine interleaved; float32, since bfloat16 cannot tell positions past 256 apart."""
    channel = torch.arange(0, d_model, 2, dtype=torch.float32, device=position.device)
    angle = position[:, None] * torch.exp(channel * -(math.log(10000.0) / d_model))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def build_positions(model: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    """The encodings that ``self_attention_model`` needs: at the full frame rate, and inside the temporal U-Net."""
    if model == "abs_pos":
        return AbsolutePositions(), AbsolutePositions()
    if model == "rel_pos_local_attn":
        return LocalPositions(dropout), LocalPositions()
    return RelativePositions(dropout), RelativePositions()
