"""Streaming state: everything the encoder remembers between two chunks of its streams, in tensors of constant size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BEGUN = 2  # frames after which a stream has all the features behind it that its subsampling sees


@dataclass
class LayerState:
    """What one layer remembers, at that layer's frame rate."""

    attention: Tensor  # (B, left context, D)  attention inputs
    convolution: Tensor  # (B, 2D, left context)  inputs of the depthwise convolution


@dataclass
class ReductionState:
    """What one time reduction remembers, at the frame rate that it halves."""

    reduction: Tensor  # (B, D, 3)


@dataclass
class EncoderState:
    """Moves on in place as chunks go through; ``SqueezeformerEncoder.init_state`` makes a fresh one.

    Streams of a batch may have begun at different times: zeros, with 0 in ``cached``, are a fresh one.
    """

    subsampling: list[Tensor]  # (B, C, left, F) for each strided convolution; none where its context comes with a chunk
    reductions: list[ReductionState]  # one for each branch of the temporal U-Net, in the order of its first layer
    layers: list[LayerState]
    cached: Tensor  # (B,)  how many frames have gone by; counted to ``past``, and to ``BEGUN`` where that is less
    past: int  # frames, at the full rate, that attention remembers
    advance: int | None = None  # frames of a chunk to remember, where the others come again with the next; None: all

    def frames(self, t: int) -> int:
        """By how many of the next ``t`` frames the streams move on."""
        return t if self.advance is None else min(t, self.advance)


def with_left_context(x: Tensor, past: Tensor, dim: int, advance: int) -> tuple[Tensor, Tensor]:
    """Prepend the remembered frames to ``x`` along ``dim``, and say which to remember after ``advance`` of its own."""
    size = past.size(dim)
    if size == 0:
        return x, past
    joined = torch.cat([past.to(x.dtype), x], dim=dim)
    return joined, joined.narrow(dim, advance, size)
