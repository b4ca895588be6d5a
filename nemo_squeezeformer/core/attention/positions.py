"""Positions of frames: relative (Transformer-XL, appendix B), absolute (Vaswani et al. 2017), rotary (RoFormer)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..frames.masks import Frames
from .rotation import turns


class RelativePositions(nn.Module):
    """The encodings of the relative positions S - 1, S - 2, ..., 1 - T of S keys and T queries.

    The relative position is the index of the query minus the index of the key. The attribute ``encodings`` is the
    function that computes the encodings: ``relative_encodings``, or a faster function, for example with a cache.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.encodings: Callable[[int, int, Tensor], Tensor] = relative_encodings

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """Return ``x`` (B, T, D) unchanged, and the encodings (S + T - 1, D)."""
        t = x.size(1)
        return x, self.dropout(self.encodings(frames.past + t - 1, 1 - t, x))


class LocalPositions(RelativePositions):
    """The encodings of the relative positions left, left - 1, ..., -right in a window of local attention."""

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """Return ``x`` (B, T, D) unchanged, and the encodings (left + right + 1, D)."""
        return x, self.dropout(self.encodings(frames.context.left, -frames.context.right, x))


class AbsolutePositions(nn.Module):
    """The encodings of the positions 0 to T - 1, which are added to the frames. Attention gets no encodings."""

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """Return the sum of ``x`` (B, T, D) and the encodings, and None, because attention gets no encodings."""
        position = torch.arange(x.size(1), dtype=torch.float32, device=x.device)
        return x + sinusoids(position, x.size(-1)).to(x.dtype), None


class RotaryPositions(nn.Module):
    """The rotation factors of the frames of a sequence, for rotary attention (``rotation.turns``).

    The keys are frames 0 to S - 1. The T queries are the last T frames. The scores depend only on the distance between
    a query and a key. Therefore each step of a stream can count its frames from 0 again.

    Args:
        head: Number of values of each head.
        width: Number of rotated values of each head.
        base: Base of the frequencies.
    """

    def __init__(self, head: int, width: int, base: float):
        super().__init__()
        self.head, self.width, self.base = head, width, base

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor | None]:
        """Return ``x`` (B, T, D) unchanged, and the rotation factors (S, 2 * head)."""
        return x, turns(frames.past + x.size(1), self.head, self.width, self.base, x)


def relative_encodings(first: int, last: int, x: Tensor) -> Tensor:
    """Return the encodings (N, D) of the positions ``first``, ``first`` - 1, ..., ``last``.

    The encodings have the width D, the dtype and the device of ``x``.
    """
    position = torch.arange(first, last - 1, -1, dtype=torch.float32, device=x.device)
    return sinusoids(position, x.size(-1)).to(x.dtype)


def sinusoids(position: Tensor, d_model: int) -> Tensor:
    """Return interleaved sines and cosines of positions: (N,) -> (N, D).

    The sines and cosines are computed in float32, because bfloat16 cannot represent all positions above 256.
    """
    channel = torch.arange(0, d_model, 2, dtype=torch.float32, device=position.device)
    angle = position[:, None] * torch.exp(channel * -(math.log(10000.0) / d_model))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
