"""Streams of audio through one model in chunks, many at once, each of which begins and ends when it likes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nemo_squeezeformer.transcription.live.feature_stream import FeatureStream
from nemo_squeezeformer.transcription.live.stream_decoders import decode_greedily, stream_decoder
from nemo_squeezeformer.transcription.live.streamed_text import StreamedText


class _Sizes(NamedTuple):
    """Of a stream's first chunk, or of each further one; all in feature frames but ``drop``."""

    chunk: int  # what a step sees
    shift: int  # how much of it is new
    before: int  # what goes before it
    drop: int  # encoder frames that those before it make


class Streams:
    """Text of ``slots`` streams: ``open`` a slot, ``push`` samples, ``end`` it; ``step`` takes a chunk of all it can.

    What a stream costs, in time and in memory, does not grow with its length; its text does. The text is that of the
    whole recording under the ``att_context_size`` that the encoder has been set to.

    Raises:
        ValueError: for a model that cannot stream: its features, its encoder or its decoder.
    """

    def __init__(self, model: Any, slots: int):
        from nemo.collections.asr.parts.mixins.streaming import StreamingEncoder

        self.slots, self.encoder = slots, model.encoder
        if not isinstance(self.encoder, StreamingEncoder):
            raise ValueError(f"an encoder of class {type(self.encoder).__name__} does not stream")
        if self.encoder.streaming_cfg is None:
            self.encoder.setup_streaming_params()
        config: Any = self.encoder.streaming_cfg
        # NeMo's settings are pairs where the first chunk differs from the others.
        chunk, shift, before = (
            (size, size) if isinstance(size, int) else size
            for size in (config.chunk_size, config.shift_size, config.pre_encode_cache_size)
        )
        self.first = _Sizes(chunk[0], shift[0], before[0], 0)
        self.later = _Sizes(chunk[1], shift[1], before[1], config.drop_extra_pre_encoded)
        self.shift, self.ahead = config.valid_out_len, config.cache_drop_size
        self.features = FeatureStream(model.preprocessor, slots)
        decode_greedily(model)
        self.decoder = stream_decoder(model, slots)
        weight = next(self.encoder.parameters())
        with torch.inference_mode():
            self.caches = self.encoder.get_initial_cache_state(slots, weight.dtype, weight.device)
            self.fresh = self.encoder.get_initial_cache_state(1, weight.dtype, weight.device)
        self.nothing = weight.new_zeros(self.encoder._feat_in, 0)
        self.past = [self.nothing] * slots  # (F, T) features that the next chunk has too
        self.at = [0] * slots  # the first frame of the next chunk
        self.texts = [StreamedText(self.decoder.write) for _ in range(slots)]

    def open(self, slot: int) -> None:
        """A new stream begins in ``slot``, whatever was there; the others go on."""
        self.features.open(slot)
        self.decoder.open(slot)
        self.past[slot], self.at[slot] = self.nothing, 0
        self.texts[slot] = StreamedText(self.decoder.write)
        self._keep([slot], self.fresh)

    def push(self, slot: int, samples: Tensor) -> None:
        """Adds (T,) samples of the model's rate, however many."""
        self.features.push(slot, samples)

    def end(self, slot: int) -> None:
        """No more samples will come; what there is still goes through ``step``."""
        self.features.end(slot)

    def missing(self, slot: int) -> int:
        """Samples that the next chunk still needs; 0 where it has them, or where the stream has ended."""
        return self.features.missing(slot, self.at[slot] + self._sizes(slot).chunk)

    def ready(self, slot: int) -> bool:
        """Whether ``step`` would take a chunk of this stream."""
        needed = 1 if self.features.ended(slot) else self._sizes(slot).chunk
        return self.features.available(slot) >= self.at[slot] + needed

    def done(self, slot: int) -> bool:
        """Whether the stream has ended, and its text is final."""
        return self.features.ended(slot) and not self.ready(slot)

    def text(self, slot: int) -> str:
        """What has been said so far."""
        return str(self.texts[slot])

    @torch.inference_mode()
    def step(self, slots: Sequence[int]) -> list[int]:
        """One chunk of each of ``slots`` that has one; which those were.

        First chunks differ in size from others, so that they go apart: two calls of the encoder where there are both.
        """
        ready = [slot for slot in slots if self.ready(slot)]
        first = [slot for slot in ready if self.at[slot] == 0]
        later = [slot for slot in ready if self.at[slot]]
        for group, sizes in ((first, self.first), (later, self.later)):
            if group:
                self._step(group, sizes)
        return ready

    def _step(self, slots: list[int], sizes: _Sizes) -> None:
        windows, lasts = self._windows(slots, sizes)
        lengths = torch.tensor([window.size(1) for window in windows], device=windows[0].device)
        chunk = torch.zeros(len(slots), windows[0].size(0), int(lengths.max()), device=lengths.device)
        for row, window in zip(chunk, windows):
            row[:, : window.size(1)] = window
        caches = self._caches_of(slots)
        encoded, encoded_lengths, *caches = self.encoder.cache_aware_stream_step(
            processed_signal=chunk.to(self.caches[0].dtype),
            processed_signal_length=lengths,
            cache_last_channel=caches[0],
            cache_last_time=caches[1],
            cache_last_channel_len=caches[2],
            keep_all_outputs=True,
            drop_extra_pre_encoded=sizes.drop,
        )
        self._keep(slots, caches)
        if self.ahead:  # frames that come again with the next chunk, where there is one
            limits = [encoded.size(2) if last else self.shift for last in lasts]
            encoded_lengths = encoded_lengths.minimum(torch.tensor(limits, device=lengths.device))
        if encoded.size(2):
            added = self.decoder.decode(slots, encoded, encoded_lengths)
            for slot, tokens in zip(slots, added):
                self.texts[slot].extend(tokens)

    def _windows(self, slots: list[int], sizes: _Sizes) -> tuple[list[Tensor], list[bool]]:
        """Each stream's (F, T) features for the next step, and whether it is its last; moves them on."""
        stops = [min(self.at[slot] + sizes.chunk, self.features.available(slot)) for slot in slots]
        counts = [stop - self.features.streams[slot].given for slot, stop in zip(slots, stops)]
        windows, lasts = [], []
        for slot, new, stop in zip(slots, self._new(slots, counts), stops):
            window = torch.cat([self.past[slot], new], dim=1)
            lacking = sizes.before - self.at[slot]
            windows.append(torch.nn.functional.pad(window, (max(lacking, 0), 0)))
            self.at[slot] += sizes.shift
            kept = stop - self.at[slot] + self.later.before  # of what is at hand, the last frames
            self.past[slot] = window[:, max(window.size(1) - kept, 0) :].clone()
            lasts.append(self.features.ended(slot) and not self.ready(slot))
        return windows, lasts

    def _new(self, slots: list[int], counts: list[int]) -> list[Tensor]:
        """Features that no step has seen; none for a stream whose last ones are those after the chunk before."""
        some = [(slot, count) for slot, count in zip(slots, counts) if count]
        new = dict(zip((slot for slot, _ in some), self.features.take(*zip(*some)) if some else ()))
        return [new.get(slot, self.nothing) for slot in slots]

    def _sizes(self, slot: int) -> _Sizes:
        return self.later if self.at[slot] else self.first

    def _caches_of(self, slots: list[int]) -> Sequence[Tensor]:
        if slots == list(range(self.slots)):
            return self.caches
        index = torch.tensor(slots, device=self.caches[0].device)
        return [cache.index_select(int(cache.dim() > 1), index) for cache in self.caches]

    @torch.inference_mode()
    def _keep(self, slots: list[int], caches: Sequence[Tensor]) -> None:
        if slots == list(range(self.slots)):
            self.caches = tuple(caches)
            return
        index = torch.tensor(slots, device=self.caches[0].device)
        for cache, new in zip(self.caches, caches):
            cache.index_copy_(int(cache.dim() > 1), index, new)


def latency(model: Any, size: Sequence[int] | None = None) -> int:
    """Milliseconds of audio that a chunk waits for: its own, and those after it where it has look-ahead.

    Args:
        size: an ``att_context_size``; None for what the encoder is set to.

    Raises:
        ValueError: if the encoder does not stream so.
    """
    from nemo_squeezeformer.integration.latency import feature_ms, latency_ms

    return round(latency_ms(model.encoder, feature_ms(model.preprocessor), size))


def latencies(model: Any) -> dict[tuple[int, ...], int]:
    """The ``latency`` of each ``att_context_size`` that the encoder was trained with, and streams with."""
    found = {}
    for size in model.encoder.att_context_size_all:
        if min(size[1:]) >= 0:
            with contextlib.suppress(ValueError):  # settings that do not stream
                found[tuple(size)] = latency(model, size)
    return found
