"""An encoder's streaming state as NeMo's stacked cache tensors, and back: the only place that knows how they are laid.

``cache_last_channel`` (layers, B, rows, D) holds frames of D values, one after another through its layers and rows: the
attention inputs that each layer remembers, of which a layer inside the temporal U-Net has half as many, then the three
frames of each time reduction. So no rows lie empty, but for the last few.
``cache_last_time`` (layers, B, C, left context) has what the depthwise convolution of each layer remembers.
``cache_last_channel_len`` (B,) counts the frames, at the encoder's rate, that have gone by, up to those remembered.

Zeros everywhere are a fresh stream, whatever the other streams of the batch are at.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from nemo_squeezeformer.core.frames.initial_state import empty_state
from nemo_squeezeformer.core.frames.state import EncoderState, LayerState, ReductionState


class Caches:
    """The layout of the caches of one ``encoder`` that remembers ``past`` frames at its own rate."""

    def __init__(self, encoder: Any, past: int):
        state = empty_state(encoder, 0, past)  # for its shapes
        self.layers, self.past, self.d_model = len(state.layers), past, encoder.d_model
        self.frames = [layer.attention.size(1) for layer in state.layers]
        self.frames += [reduction.reduction.size(2) for reduction in state.reductions]
        self.rows = max(-(-sum(self.frames) // self.layers), 1)  # no dimension of 0: exporters do not like them
        _, self.channels, self.left = state.layers[0].convolution.shape

    def zeros(self, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The caches of ``batch`` fresh streams."""
        return (
            torch.zeros(self.layers, batch, self.rows, self.d_model, dtype=dtype, device=device),
            torch.zeros(self.layers, batch, self.channels, max(self.left, 1), dtype=dtype, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
        )

    def unpacked(self, channel: Tensor, time: Tensor, length: Tensor) -> EncoderState:
        """The state that the caches are.

        Raises:
            ValueError: for caches of another layout: they are another encoder's, or of another att_context_size.
        """
        for name, cache, size in (
            ("cache_last_channel", channel, (self.rows, self.d_model)),
            ("cache_last_time", time, (self.channels, max(self.left, 1))),
        ):
            if cache.size(0) != self.layers or tuple(cache.shape[2:]) != size:
                raise ValueError(
                    f"{name} of shape {tuple(cache.shape)}: expected {(self.layers, 'B', *size)}; begin a stream with "
                    "get_initial_cache_state(), again after att_context_size has changed"
                )
        frames = channel.transpose(0, 1).flatten(1, 2)  # (B, layers * rows, D)
        pieces = [frames[:, end - n : end] for n, end in zip(self.frames, accumulate(self.frames))]
        return EncoderState(
            subsampling=[],
            reductions=[ReductionState(piece.transpose(1, 2)) for piece in pieces[self.layers :]],
            layers=[LayerState(piece, past[..., : self.left]) for piece, past in zip(pieces, time)],
            cached=length.long(),
            past=self.past,
        )

    def packed(self, state: EncoderState, like: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """``state`` as caches, of the types of those that it was unpacked from."""
        channel, time, length = like
        pieces = [layer.attention for layer in state.layers if layer.attention.size(1)]
        pieces += [reduction.reduction.transpose(1, 2) for reduction in state.reductions]
        if pieces:
            frames = pad(torch.cat(pieces, dim=1), (0, 0, 0, self.layers * self.rows - sum(self.frames)))
            channel = frames.view(-1, self.layers, self.rows, self.d_model).transpose(0, 1).to(channel.dtype)
        if self.left:
            time = torch.stack([layer.convolution for layer in state.layers]).to(time.dtype)
        return channel, time, state.cached.to(length.dtype)
