"""The streaming state: all that an encoder remembers between two chunks, in tensors of constant size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BEGUN = 2  # after this many frames the subsampling has its full left context


@dataclass
class LayerState:
    """The streaming state of one layer, at the frame rate of the layer."""

    attention: Tensor  # (B, left context, D)  inputs of attention
    convolution: Tensor  # (B, 2D, left context)  inputs of the depthwise convolution


@dataclass
class ReductionState:
    """The streaming state of one reduction layer, at the frame rate of its input."""

    reduction: Tensor  # (B, D, 3)


@dataclass
class EncoderState:
    """The streaming state of a batch of streams, from ``SqueezeformerEncoder.init_state``.

    Each call of the encoder updates it in place. The streams of a batch can begin at different times: to start a new
    stream in a row of the batch, set the row to zero in all tensors, including ``cached``.
    """

    subsampling: list[Tensor]  # (B, C, left, F) for each strided convolution; empty if chunks bring their context
    reductions: list[ReductionState]  # one for each branch of the temporal U-Net, in the order of their first layers
    layers: list[LayerState]
    cached: Tensor  # (B,)  number of frames that have passed, at most max(past, BEGUN)
    past: int  # number of encoder frames that attention remembers
    advance: int | None = None  # frames of a chunk to remember; the rest come again with the next chunk; None: all

    def frames(self, t: int) -> int:
        """Return by how many frames the streams advance in a chunk of ``t`` frames."""
        return t if self.advance is None else min(t, self.advance)


def with_left_context(x: Tensor, past: Tensor, dim: int, advance: int) -> tuple[Tensor, Tensor]:
    """Prepend the remembered frames ``past`` to ``x`` along ``dim``.

    Return the joined frames, and the frames to remember after the stream has advanced by ``advance`` frames of ``x``.
    """
    size = past.size(dim)
    if size == 0:
        return x, past
    joined = torch.cat([past.to(x.dtype), x], dim=dim)
    return joined, joined.narrow(dim, advance, size)
