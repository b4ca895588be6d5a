"""NeMo's streaming interface: chunks of features and stacked caches in, encodings and the caches for the next out."""

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

MAX_CONTEXT = 10000  # frames that attention remembers where it has no limit to the left, as in NeMo's Conformer


class Streaming(StreamingEncoder):
    """What ``SqueezeformerEncoder`` does for NeMo's streaming programs and pipelines."""

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
        """Sets ``streaming_cfg``: by the encoder's own context, or by chunks that are given in encoder frames.

        Args:
            chunk_size: frames that a step sees; makes chunks of a model that has none, or others, where what comes out
                may differ from the whole, as attention and convolutions are cut.
            shift_size: frames of the chunk that are new in each step; None for all.
            left_chunks: how many chunks attention remembers; None for as much as its context reaches.
            att_context_size: set this size first, as ``set_default_att_context_size`` does.
            max_context: frames that attention remembers where its context has no limit to the left.

        Raises:
            ValueError: for settings that do not stream, or chunks that the temporal U-Net would cut.
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
        """What ``setup_streaming_params`` set, else by the encoder's own context; None where that does not stream."""
        with suppress(ValueError):
            return self.streams()[0]
        return None

    @streaming_cfg.setter
    def streaming_cfg(self, config: CacheAwareStreamingConfig | None) -> None:
        self._streaming_cfg = config

    def streams(self) -> tuple[CacheAwareStreamingConfig, Caches]:
        """``streaming_cfg`` and the layout of the caches; ValueError, with the reason, for what does not stream."""
        if self._streaming_cfg is None:
            self.setup_streaming_params()
        assert self._streaming_cfg is not None
        return self._streaming_cfg, self._caches

    def _features(self, frames: int) -> int | list[int]:
        """How many feature frames make so many of the encoder: of a stream's first chunk, and of each further one."""
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
        """The caches of ``batch_size`` streams before their first chunk: zeros, and no valid frames in them.

        With ``max_dim`` above 0, those of streams that have been running: random ones, for example inputs.

        Raises:
            ValueError: if these settings do not stream.
        """
        _, caches = self.streams()
        device = device or self.layers[0].conv.depthwise_conv.weight.device
        channel, time, length = caches.zeros(batch_size, dtype, device)
        if max_dim > 0:
            return channel.normal_(), time.normal_(), length.random_(0, min(max_dim, caches.past) + 1)
        return channel, time, length

    def absent(self, caches: tuple[Tensor, Tensor, Tensor]) -> Tensor | None:
        """(B,) how many of the next features lie before the start of their streams; None where chunks have none such.

        Frames that are dropped from every chunk are made of the features before it, of which a new stream has none. So
        a stream may begin beside others that run, and a graph that drops so many from every chunk is exact from the
        first on, which has ``drop_extra_pre_encoded * subsampling_factor`` frames before it, of any values.
        """
        config, _ = self.streams()
        if not config.drop_extra_pre_encoded:
            return None
        return self.subsampling_factor * (config.drop_extra_pre_encoded - caches[2].long()).clamp(min=0)

    def stream(
        self, x: Tensor, lengths: Tensor, caches: tuple[Tensor, Tensor, Tensor], before_chunk: bool
    ) -> tuple[Tensor, ...]:
        """(B, T, D) subsampled features of the next chunk -> encodings (B, D, T), their lengths, and the next caches.

        ``before_chunk``: the first frames are those of ``pre_encode_cache_size``, of no more use.
        """
        config, layout = self.streams()
        if before_chunk:
            x = x[:, config.drop_extra_pre_encoded :]
            lengths = (lengths - config.drop_extra_pre_encoded).clamp(min=0)
        state = layout.unpacked(*caches)
        if config.cache_drop_size:
            state.advance = config.valid_out_len
        if x.size(1) == 0:  # what is left of the streams makes no frame
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
        """NeMo's step: (B, F, T) features after the ``pre_encode_cache_size`` ones before them, with the caches.

        Without ``processed_signal_length`` all frames are valid.
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
            if config is not None:  # NeMo leaves it as it was for this step if the step fails
                config.drop_extra_pre_encoded = drops
        # Without the neural types that NeMo attaches to what forward gives: torch.load refuses caches saved with them.
        return encoded, lengths, *(None if cache is None else cache.view_as(cache) for cache in caches)

    def streaming_post_process(
        self, rets: tuple[Tensor, ...], keep_all_outputs: bool = True
    ) -> tuple[Tensor | None, ...]:
        """What ``forward`` gave, without the frames that come again with the next chunk; all if it is the last."""
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
    """The three caches of a chunk of ``batch`` streams, or None where there are none.

    Raises:
        ValueError: if some are there and some are not, or they are of another number of streams.
    """
    if channel is None and time is None and length is None:
        return None
    if channel is None or time is None or length is None:
        raise ValueError(
            "cache_last_channel, cache_last_time and cache_last_channel_len go together: all three as "
            "get_initial_cache_state() or the step before gave them, or none"
        )
    for name, cache, streams in (
        ("cache_last_channel", channel, channel.size(1)),
        ("cache_last_time", time, time.size(1)),
        ("cache_last_channel_len", length, length.size(0)),
    ):
        if streams != batch:
            raise ValueError(f"{name} of shape {tuple(cache.shape)} is of {streams} streams, but the chunk of {batch}")
    return channel, time, length
