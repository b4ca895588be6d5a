"""The transcription of several audio streams by one model, in chunks. Streams begin and end independently."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nemo_squeezeformer.transcription.live.feature_stream import FeatureStream
from nemo_squeezeformer.transcription.live.stream_decoders import decode_greedily, stream_decoder
from nemo_squeezeformer.transcription.live.stream_times import StreamTimes
from nemo_squeezeformer.transcription.live.streamed_text import StreamedText


class _Sizes(NamedTuple):
    """The sizes of the first chunk of a stream, or of the later chunks.

    ``drop`` is a number of encoder frames. All other sizes are numbers of feature frames.
    """

    chunk: int  # length of a chunk, with the look-ahead
    shift: int  # distance from the start of a chunk to the start of the next chunk
    before: int  # earlier frames that are prepended to a chunk
    drop: int  # encoder frames to drop, because they come from the prepended frames


class Streams:
    """The texts of several simultaneous streams. Each stream has a slot, which is a number from 0.

    Call ``open`` to begin a stream in a slot, ``push`` to add samples and ``end`` to end the stream. Call ``step`` to
    process one chunk of each stream that has a complete chunk. The time of a step and the memory for the state of a
    stream do not grow with the length of the stream. Only the text of the stream grows. The text equals the text of the
    whole recording with the current ``att_context_size`` of the encoder.

    Args:
        model: a NeMo ASR model.
        slots: the number of slots, which is the maximum number of simultaneous streams.
        words: if True, ``times`` contains the words with their times.
        silence: seconds without a token that end an utterance in ``times``; None for no utterances.

    Attributes:
        times: the times of words and utterances; None if neither is needed.

    Raises:
        ValueError: the features, the encoder or the decoder of the model cannot stream.
    """

    def __init__(self, model: Any, slots: int, words: bool = False, silence: float | None = None):
        from nemo.collections.asr.parts.mixins.streaming import StreamingEncoder

        self.slots, self.encoder = slots, model.encoder
        if not isinstance(self.encoder, StreamingEncoder):
            raise ValueError(f"an encoder of class {type(self.encoder).__name__} does not stream")
        if self.encoder.streaming_cfg is None:
            self.encoder.setup_streaming_params()
        config: Any = self.encoder.streaming_cfg
        _check_context(self.encoder, config.last_channel_cache_size)
        # NeMo's settings are pairs if the first chunk differs from the later chunks.
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
        self.past = [self.nothing] * slots  # (F, T), the last features, which the next chunk contains again
        self.at = [0] * slots  # index of the first feature frame of the next chunk
        self.texts = [StreamedText(self.decoder.write) for _ in range(slots)]
        self.times = times_of(model, self.decoder.write, slots, words, silence)

    def open(self, slot: int) -> None:
        """Begin a new stream in ``slot``. The new stream replaces the previous stream of this slot."""
        self.features.open(slot)
        self.decoder.open(slot)
        self.past[slot], self.at[slot] = self.nothing, 0
        self.texts[slot] = StreamedText(self.decoder.write)
        if self.times is not None:
            self.times.open(slot)
        self._keep([slot], self.fresh)

    def push(self, slot: int, samples: Tensor) -> None:
        """Add samples (T,) at the sample rate of the model. T may be any number."""
        self.features.push(slot, samples)

    def end(self, slot: int) -> None:
        """Mark the end of the stream. ``step`` still processes the samples that have been pushed."""
        self.features.end(slot)

    def missing(self, slot: int) -> int:
        """Return the number of samples that the next chunk still needs; 0 after the end of the stream."""
        return self.features.missing(slot, self.at[slot] + self._sizes(slot).chunk)

    def ready(self, slot: int) -> bool:
        """Return True if ``step`` can process a chunk of this stream."""
        needed = 1 if self.features.ended(slot) else self._sizes(slot).chunk
        return self.features.available(slot) >= self.at[slot] + needed

    def done(self, slot: int) -> bool:
        """Return True if the stream has ended and the text is final."""
        return self.features.ended(slot) and not self.ready(slot)

    def text(self, slot: int) -> str:
        """Return the text of the stream so far."""
        return str(self.texts[slot])

    @torch.inference_mode()
    def step(self, slots: Sequence[int]) -> list[int]:
        """Process one chunk of each stream in ``slots`` that is ready, and return the slots of these streams.

        The first chunk of a stream differs in size from later chunks. The encoder therefore
        processes first chunks and later chunks in separate calls.
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
        if self.ahead:  # the next chunk gives these frames again; only the last chunk of a stream keeps them
            limits = [encoded.size(2) if last else self.shift for last in lasts]
            encoded_lengths = encoded_lengths.minimum(torch.tensor(limits, device=lengths.device))
        if encoded.size(2):
            added = self.decoder.decode(slots, encoded, encoded_lengths)
            for slot, tokens in zip(slots, added):
                self.texts[slot].extend([token for token, _ in tokens])
                if self.times is not None:
                    self.times.extend(slot, tokens, self.decoder.frames[slot])

    def _windows(self, slots: list[int], sizes: _Sizes) -> tuple[list[Tensor], list[bool]]:
        """Return the features (F, T) of each stream for the next step, and a flag that is True for the last step.

        The method also advances each stream to the next chunk.
        """
        stops = [min(self.at[slot] + sizes.chunk, self.features.available(slot)) for slot in slots]
        counts = [stop - self.features.streams[slot].given for slot, stop in zip(slots, stops)]
        windows, lasts = [], []
        for slot, new, stop in zip(slots, self._new(slots, counts), stops):
            window = torch.cat([self.past[slot], new], dim=1)
            lacking = sizes.before - self.at[slot]
            windows.append(torch.nn.functional.pad(window, (max(lacking, 0), 0)))
            self.at[slot] += sizes.shift
            kept = stop - self.at[slot] + self.later.before  # the last frames, which the next chunk contains again
            self.past[slot] = window[:, max(window.size(1) - kept, 0) :].clone()
            lasts.append(self.features.ended(slot) and not self.ready(slot))
        return windows, lasts

    def _new(self, slots: list[int], counts: list[int]) -> list[Tensor]:
        """Return the new features of each stream.

        The new features are empty if the look-ahead of the previous chunk already contained all remaining features.
        """
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


def _check_context(encoder: Any, past: int) -> None:
    """Raise ValueError if a stream needs all later frames, or if an enabled adapter needs ``past`` earlier frames."""
    size = list(getattr(encoder, "att_context_size", (0,)))
    if size[-1] < 0:
        raise ValueError(f"att_context_size={size} has no limit to the right, and a chunk needs a limit")
    for layer in getattr(encoder, "layers", ()) if past else ():
        if hasattr(layer, "refuse_attention_adapters") and layer.is_adapter_available():
            layer.refuse_attention_adapters()


def times_of(model: Any, write: Any, slots: int, words: bool, silence: float | None) -> StreamTimes | None:
    """Return the times of ``slots`` streams, or None if neither words nor utterances are needed."""
    from nemo_squeezeformer.transcription.long_audio import frame_seconds

    if not words and silence is None:
        return None
    return StreamTimes(write, slots, frame_seconds(model), words, silence)


def latency(model: Any, size: Sequence[int] | None = None) -> int:
    """Return the latency of a chunk in milliseconds: the length of the chunk plus the length of the look-ahead.

    Args:
        model: a NeMo ASR model.
        size: an ``att_context_size``; None for the current setting of the encoder.

    Raises:
        ValueError: the encoder cannot stream with this size.
    """
    from nemo_squeezeformer.integration.latency import feature_ms, latency_ms

    return round(latency_ms(model.encoder, feature_ms(model.preprocessor), size))


def latencies(model: Any) -> dict[tuple[int, ...], int]:
    """Return the ``latency`` of each ``att_context_size`` that the encoder was trained with and can stream with."""
    found = {}
    for size in model.encoder.att_context_size_all:
        if min(size[1:]) >= 0:
            with contextlib.suppress(ValueError):  # settings that cannot stream
                found[tuple(size)] = latency(model, size)
    return found
