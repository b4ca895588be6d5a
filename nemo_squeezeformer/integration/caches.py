"""The conversion between an encoder's streaming state and NeMo's stacked cache tensors.

Only this module knows the layout of the caches.

- ``cache_last_channel`` (layers, B, rows, D) is a sequence of frames of D values. The sequence fills layer after layer,
  row after row. The first part of the sequence is the attention inputs that each layer remembers. With rotary
  positions, a layer remembers the keys and values, which are two vectors of D values for each frame. A layer inside the
  temporal U-Net remembers half as many frames. The second part is the three frames that each reduction layer remembers.
  Only the last few rows can be unused.
- ``cache_last_time`` (layers, B, C, left context) is the left context of the depthwise convolution of each layer.
- ``cache_last_channel_len`` (B,) is the number of encoder frames that each stream has processed. The number does not
  grow above the number of frames that attention remembers.

A stream whose caches are all zeros is a new stream. The other streams of the batch can be at any position.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad

from nemo_squeezeformer.core.frames.initial_state import empty_state
from nemo_squeezeformer.core.frames.state import EncoderState, LayerState, ReductionState
from nemo_squeezeformer.core.frames.streamable import Streamable


class Caches:
    """The layout of the caches of an ``encoder`` whose attention remembers ``past`` encoder frames."""

    def __init__(self, encoder: Streamable, past: int):
        state = empty_state(encoder, 0, past)  # only the shapes are used
        self.layers, self.past, self.d_model = len(state.layers), past, encoder.d_model
        self.widths = [layer.attention.size(2) for layer in state.layers]
        self.frames = [
            layer.attention.size(1) * width // self.d_model for layer, width in zip(state.layers, self.widths)
        ]
        self.frames += [reduction.reduction.size(2) for reduction in state.reductions]
        self.rows = max(-(-sum(self.frames) // self.layers), 1)  # exporters do not support dimensions of size 0
        _, self.channels, self.left = state.layers[0].convolution.shape

    def zeros(self, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return the caches of ``batch`` new streams."""
        return (
            torch.zeros(self.layers, batch, self.rows, self.d_model, dtype=dtype, device=device),
            torch.zeros(self.layers, batch, self.channels, max(self.left, 1), dtype=dtype, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
        )

    def unpacked(self, channel: Tensor, time: Tensor, length: Tensor) -> EncoderState:
        """Return the streaming state that the caches contain.

        Raises:
            ValueError: the layout of the caches belongs to another encoder or to another ``att_context_size``.
        """
        for name, cache, size in (
            ("cache_last_channel", channel, (self.rows, self.d_model)),
            ("cache_last_time", time, (self.channels, max(self.left, 1))),
        ):
            if cache.size(0) != self.layers or tuple(cache.shape[2:]) != size:
                raise ValueError(
                    f"{name} of shape {tuple(cache.shape)}: expected {(self.layers, 'B', *size)}; start a stream "
                    "with get_initial_cache_state(), and start it again after a change of att_context_size"
                )
        frames = channel.transpose(0, 1).flatten(1, 2)  # (B, layers * rows, D)
        pieces = [frames[:, end - n : end] for n, end in zip(self.frames, accumulate(self.frames))]
        return EncoderState(
            subsampling=[],
            reductions=[ReductionState(piece.transpose(1, 2)) for piece in pieces[self.layers :]],
            layers=[
                LayerState(piece.reshape(piece.size(0), -1, width), past[..., : self.left])
                for piece, width, past in zip(pieces, self.widths, time)
            ],
            cached=length.long(),
            past=self.past,
        )

    def packed(self, state: EncoderState, like: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the streaming state ``state`` as caches. The caches have the dtypes of the caches ``like``."""
        channel, time, length = like
        batch = channel.size(1)
        pieces = [layer.attention.reshape(batch, -1, self.d_model) for layer in state.layers if layer.attention.size(1)]
        pieces += [reduction.reduction.transpose(1, 2) for reduction in state.reductions]
        if pieces:
            frames = pad(torch.cat(pieces, dim=1), (0, 0, 0, self.layers * self.rows - sum(self.frames)))
            channel = frames.view(-1, self.layers, self.rows, self.d_model).transpose(0, 1).to(channel.dtype)
        if self.left:
            time = torch.stack([layer.convolution for layer in state.layers]).to(time.dtype)
        return channel, time, state.cached.to(length.dtype)
