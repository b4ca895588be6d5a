"""The streaming state: all that an encoder remembers between two chunks, in tensors of constant size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BEGUN = 2  # after this number of encoder frames, the subsampling has the full left context


@dataclass
class LayerState:
    """The streaming state of one layer, at the frame rate of the layer."""

    attention: Tensor  # (B, left context, D)  inputs of attention; with rotary positions (B, left context, 2D)
    convolution: Tensor  # (B, 2D, left context)  inputs of the depthwise convolution


@dataclass
class ReductionState:
    """The streaming state of one reduction layer, at the frame rate of the input of this layer."""

    reduction: Tensor  # (B, D, 3)  last input frames of the reduction layer


@dataclass
class EncoderState:
    """The streaming state of a batch of streams, from ``SqueezeformerEncoder.init_state``.

    Each call of the encoder updates the state in place. The streams of a batch can begin at different times: to start a
    new stream in a row of the batch, set the row to zero in all tensors, including ``cached``.
    """

    subsampling: list[Tensor]  # (B, C, left, F) for each strided convolution; empty if chunks contain the left context
    reductions: list[ReductionState]  # a state for each branch of the temporal U-Net, in the order of ``Span.number``
    layers: list[LayerState]
    cached: Tensor  # (B,)  number of encoder frames so far, at most max(past, BEGUN)
    past: int  # number of encoder frames that attention remembers
    # Number of frames of a chunk to remember. The next chunk repeats the other frames. None means all frames.
    advance: int | None = None

    def frames(self, t: int) -> int:
        """Return the number of frames by which the streams advance in a chunk of ``t`` frames."""
        return t if self.advance is None else min(t, self.advance)


def with_left_context(x: Tensor, past: Tensor, dim: int, advance: int) -> tuple[Tensor, Tensor]:
    """Prepend the remembered frames ``past`` to ``x`` along ``dim``.

    Return the joined frames, and the frames to remember when the stream advances by ``advance`` frames of ``x``.
    """
    size = past.size(dim)
    if size == 0:
        return x, past
    joined = torch.cat([past.to(x.dtype), x], dim=dim)
    return joined, finite(joined.narrow(dim, advance, size))


def finite(x: Tensor) -> Tensor:
    """Return ``x`` with zeros in place of NaN and infinite values.

    A stream remembers frames and masks frames. A mask is not sufficient, because the product of 0 and NaN is NaN.
    """
    return x.nan_to_num(0.0, 0.0, 0.0)
