"""NeMo's streaming interface.

The inputs of a step are a chunk of features and caches. The outputs are encodings and the caches for the next chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from nemo.collections.asr.models.configs import CacheAwareStreamingConfig
from nemo.collections.asr.parts.mixins.streaming import StreamingEncoder
from torch import Tensor

from nemo_squeezeformer.core.frames.steps import Steps
from nemo_squeezeformer.integration.caches import Caches

MAX_CONTEXT = 10000  # encoder frames that attention remembers with unlimited left context, as in NeMo's Conformer


class Streaming(StreamingEncoder):
    """A base class of ``SqueezeformerEncoder`` with the methods that NeMo's streaming programs and pipelines call."""

    _streaming_cfg: CacheAwareStreamingConfig | None = None
    _caches: Caches
    encode: Callable[..., tuple[Tensor, Tensor]]
    set_default_att_context_size: Callable[[Sequence[int]], None]
    subsampling_factor: int
    feat_out: int
    layers: Any
    pre_encode: Any

    def setup_streaming_params(
        self,
        chunk_size: int | None = None,
        shift_size: int | None = None,
        left_chunks: int | None = None,
        att_context_size: Sequence[int] | None = None,
        max_context: int = MAX_CONTEXT,
    ) -> None:
        """Set ``streaming_cfg`` from the encoder's context, or from a chunk size in encoder frames.

        Args:
            chunk_size: number of encoder frames that a step sees; None for the chunks of ``att_context_size``. Any
                size works, but attention and convolutions do not see frames after the chunk. The output can then differ
                from the output for the whole utterance.
            shift_size: number of encoder frames of the chunk that are new in each step; None for all frames.
            left_chunks: number of chunks that attention remembers; None for the left context of the encoder.
            att_context_size: a size to set with ``set_default_att_context_size`` before the other settings; None for
                the current size.
            max_context: number of encoder frames that attention remembers if the left context is unlimited.

        Raises:
            ValueError: the settings do not support streaming, or the temporal U-Net would cut the chunks.
        """
        if att_context_size is not None:
            self.set_default_att_context_size(att_context_size)
        left = None if chunk_size is None or left_chunks is None else left_chunks * chunk_size
        steps = Steps.of(self, chunk_size, shift_size, left, unlimited=max_context)

        config = CacheAwareStreamingConfig()
        config.valid_out_len, config.cache_drop_size = steps.shift, steps.ahead
        config.last_channel_cache_size = steps.left
        config.last_channel_num = config.last_time_num = len(self.layers)
        config.chunk_size = self._features(steps.shift + steps.ahead)
        config.shift_size = self._features(steps.shift)
        config.pre_encode_cache_size = self.pre_encode.get_streaming_cache_size()
        if isinstance(config.pre_encode_cache_size, list):
            config.drop_extra_pre_encoded = 1 + (config.pre_encode_cache_size[1] - 1) // self.subsampling_factor
        self._streaming_cfg, self._caches = config, Caches(self, steps.left)

    @property
    def streaming_cfg(self) -> CacheAwareStreamingConfig | None:
        """The streaming settings that ``setup_streaming_params`` has set.

        If this method was not called, the settings follow from the context of the encoder. The value is None if the
        encoder does not support streaming.
        """
        with suppress(ValueError):
            return self.streams()[0]
        return None

    @streaming_cfg.setter
    def streaming_cfg(self, config: CacheAwareStreamingConfig | None) -> None:
        self._streaming_cfg = config

    def streams(self) -> tuple[CacheAwareStreamingConfig, Caches]:
        """Return ``streaming_cfg`` and the layout of the caches.

        Raises:
            ValueError: the settings do not support streaming.
        """
        if self._streaming_cfg is None:
            self.setup_streaming_params()
        assert self._streaming_cfg is not None
        return self._streaming_cfg, self._caches

    def _features(self, frames: int) -> int | list[int]:
        """Return the number of feature frames for ``frames`` encoder frames.

        Return a list of two numbers if the first chunk differs: for the first chunk, and for every following chunk.
        """
        sampling, factor = self.pre_encode.get_sampling_frames(), self.subsampling_factor
        if not isinstance(sampling, list):
            return factor * frames
        return [sampling[0] + factor * (frames - 1), factor * frames]

    def get_initial_cache_state(
        self,
        batch_size: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        max_dim: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the caches of ``batch_size`` new streams. The caches are zeros, and no cached frame is valid.

        If ``max_dim`` is above 0, return random caches of running streams, for example as inputs of a recorded graph.

        Raises:
            ValueError: the settings do not support streaming.
        """
        _, caches = self.streams()
        device = device or self.layers[0].conv.depthwise_conv.weight.device
        channel, time, length = caches.zeros(batch_size, dtype, device)
        if max_dim > 0:
            return channel.normal_(), time.normal_(), length.random_(0, min(max_dim, caches.past) + 1)
        return channel, time, length

    def absent(self, caches: tuple[Tensor, Tensor, Tensor]) -> Tensor | None:
        """Return the number (B,) of leading feature frames that lie before the start of each stream.

        Return None if no encoder frames are dropped from a chunk. Otherwise earlier feature frames are prepended to
        every chunk, and the encoder frames of these feature frames are dropped. A new stream has no earlier feature
        frames. Prepend ``drop_extra_pre_encoded * subsampling_factor`` frames of any values. The encoder treats these
        frames as zero padding. A stream can therefore start in a batch of running streams. A recorded graph drops an
        equal number of frames from every chunk. The outputs of the graph are exact for the first chunk too.
        """
        config, _ = self.streams()
        if not config.drop_extra_pre_encoded:
            return None
        return self.subsampling_factor * (config.drop_extra_pre_encoded - caches[2].long()).clamp(min=0)

    def stream(
        self, x: Tensor, lengths: Tensor, caches: tuple[Tensor, Tensor, Tensor], before_chunk: bool
    ) -> tuple[Tensor, ...]:
        """Encode a chunk: subsampled features (B, T, D) -> encodings (B, D, T), lengths (B,), and the next caches.

        Args:
            x: the subsampled features.
            lengths: number of valid frames of each stream.
            caches: the caches of the streams.
            before_chunk: if True, drop the first frames of ``x``, which belong to the prepended feature frames.
        """
        config, layout = self.streams()
        if before_chunk:
            x = x[:, config.drop_extra_pre_encoded :]
            lengths = (lengths - config.drop_extra_pre_encoded).clamp(min=0)
        state = layout.unpacked(*caches)
        if config.cache_drop_size:
            state.advance = config.valid_out_len
        if x.size(1) == 0:  # the remaining features are too few for an encoder frame
            return x.new_zeros(x.size(0), self.feat_out, 0), lengths, *caches
        x, lengths = self.encode(x, lengths, state)
        return x, lengths, *layout.packed(state, caches)

    def cache_aware_stream_step(
        self,
        processed_signal: Tensor,
        processed_signal_length: Tensor | None = None,
        cache_last_channel: Tensor | None = None,
        cache_last_time: Tensor | None = None,
        cache_last_channel_len: Tensor | None = None,
        keep_all_outputs: bool = True,
        drop_extra_pre_encoded: int | None = None,
        bypass_pre_encode: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """Run a step of NeMo's streaming interface on features (B, F, T) and caches.

        ``processed_signal`` is ``pre_encode_cache_size`` earlier feature frames, followed by the features of the chunk.
        Without ``processed_signal_length``, all frames are valid.
        """
        if processed_signal_length is None:
            t = processed_signal.size(1 if bypass_pre_encode else 2)
            processed_signal_length = torch.full((processed_signal.size(0),), t, device=processed_signal.device)
        config = self.streaming_cfg
        drops = config and config.drop_extra_pre_encoded
        try:
            encoded, lengths, *caches = super().cache_aware_stream_step(
                processed_signal,
                processed_signal_length,
                cache_last_channel,
                cache_last_time,
                cache_last_channel_len,
                keep_all_outputs,
                drop_extra_pre_encoded,
                bypass_pre_encode,
            )
        finally:
            if config is not None:  # NeMo does not restore this value if the step fails
                config.drop_extra_pre_encoded = drops
        # NeMo attaches neural types to the outputs of forward. torch.load refuses saved caches with neural types.
        return encoded, lengths, *(None if cache is None else cache.view_as(cache) for cache in caches)

    def streaming_post_process(
        self, rets: tuple[Tensor, ...], keep_all_outputs: bool = True
    ) -> tuple[Tensor | None, ...]:
        """Remove the look-ahead frames from the outputs of ``forward``. The next chunk computes these frames again.

        If ``keep_all_outputs`` is True, the method keeps all frames. Use this value for the last chunk.
        """
        if len(rets) == 2:
            return rets[0], rets[1], None, None, None
        encoded, lengths, *caches = rets
        config, _ = self.streams()
        if config.cache_drop_size and not keep_all_outputs:
            encoded = encoded[:, :, : config.valid_out_len]
            lengths = lengths.clamp(max=config.valid_out_len)
        return encoded, lengths, *caches


def all_or_none(
    channel: Tensor | None, time: Tensor | None, length: Tensor | None, batch: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the three caches of a chunk of ``batch`` streams, or None if all three caches are None.

    Raises:
        ValueError: some caches are missing, or the caches have another number of streams.
    """
    if channel is None and time is None and length is None:
        return None
    if channel is None or time is None or length is None:
        raise ValueError(
            "cache_last_channel, cache_last_time and cache_last_channel_len go together: pass all three caches of "
            "get_initial_cache_state() or of the previous step, or pass no caches"
        )
    for name, cache, streams in (
        ("cache_last_channel", channel, channel.size(1)),
        ("cache_last_time", time, time.size(1)),
        ("cache_last_channel_len", length, length.size(0)),
    ):
        if streams != batch:
            raise ValueError(f"{name} of shape {tuple(cache.shape)} has {streams} streams, but the chunk has {batch}")
    return channel, time, length
