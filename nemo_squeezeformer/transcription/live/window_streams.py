"""The transcription of several audio streams by a model that was trained offline, in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.live.stream_decoders import decode_greedily, stream_decoder
from nemo_squeezeformer.transcription.live.streamed_text import StreamedText
from nemo_squeezeformer.transcription.live.streams import times_of
from nemo_squeezeformer.transcription.long_audio import frame_seconds
from nemo_squeezeformer.transcription.speech import shortest_samples

CHUNK, AHEAD, PAST = 2.0, 2.0, 10.0  # seconds; the defaults of NeMo's script for streams in windows
# The temporal U-Net merges pairs of frames. A window begins with the first frame of a pair, as the recording does.
TOGETHER = 2


class Window(NamedTuple):
    """The lengths of the three parts of a window, in samples. Each length is a multiple of ``unit``.

    The encoder processes the window as a whole. The text comes from the chunk.
    """

    past: int  # before the chunk; less at the start of a stream
    chunk: int
    ahead: int  # after the chunk
    unit: int  # number of samples of an encoder frame


class WindowStreams:
    """The texts of several simultaneous streams, from overlapping windows. ``Streams`` has the same interface.

    NeMo's ``StreamingBatchedAudioBuffer`` cuts the windows. The features of a window are normalized over the window.
    Therefore the text can differ from the text of the whole recording. If the recording fits into the first window, the
    text equals the text of the whole recording. Memory and the time of a step do not grow with the length of a stream.

    Args:
        model: a NeMo ASR model.
        slots: the maximum number of simultaneous streams.
        window: the parts of a window.
        words: if True, ``times`` contains the words with their times.
        silence: seconds without a token that end an utterance in ``times``; None for no utterances.

    Raises:
        ValueError: the model has neither a CTC nor a transducer decoder, or the model needs a prompt.
    """

    def __init__(self, model: Any, slots: int, window: Window, words: bool = False, silence: float | None = None):
        self.slots, self.window, self.model = slots, window, model
        decode_greedily(model)
        self.decoder = stream_decoder(model, slots)
        self.shortest = shortest_samples(model.preprocessor)
        self.device = next(model.encoder.parameters()).device
        self.times = times_of(model, self.decoder.write, slots, words, silence)
        self.texts = [StreamedText(self.decoder.write) for _ in range(slots)]
        self.new = [torch.zeros(0)] * slots  # (T,), the samples that are not in a window yet
        self.first = [True] * slots  # True until the first window
        self.last = [False] * slots  # True after the end of the stream
        self.finished = [False] * slots  # True after the last window
        self.buffers = [self._buffer() for _ in range(slots)]

    def open(self, slot: int) -> None:
        """Begin a new stream in ``slot``. The new stream replaces the previous stream of this slot."""
        self.decoder.open(slot)
        self.texts[slot], self.buffers[slot] = StreamedText(self.decoder.write), self._buffer()
        self.new[slot], self.first[slot] = torch.zeros(0), True
        self.last[slot] = self.finished[slot] = False
        if self.times is not None:
            self.times.open(slot)

    def push(self, slot: int, samples: Tensor) -> None:
        """Add samples (T,) at the sample rate of the model. T may be any number."""
        self.new[slot] = torch.cat([self.new[slot], samples])

    def end(self, slot: int) -> None:
        """Mark the end of the stream. ``step`` still processes the samples that have been pushed."""
        self.last[slot] = True

    def missing(self, slot: int) -> int:
        """Return the number of samples that the next window still needs; 0 after the end of the stream."""
        return 0 if self.last[slot] else max(self._needed(slot) - len(self.new[slot]), 0)

    def ready(self, slot: int) -> bool:
        """Return True if ``step`` can process a window of this stream."""
        return not self.finished[slot] and (self.last[slot] or not self.missing(slot))

    def done(self, slot: int) -> bool:
        """Return True if the stream has ended and the text is final."""
        return self.finished[slot]

    def text(self, slot: int) -> str:
        """Return the text of the stream so far."""
        return str(self.texts[slot])

    @torch.inference_mode()
    def step(self, slots: Sequence[int]) -> list[int]:
        """Process one window of each stream in ``slots`` that is ready, and return the slots of these streams."""
        ready = [slot for slot in slots if self.ready(slot)]
        for slot in ready:
            self._advance(slot)
        with_audio = [slot for slot in ready if self.buffers[slot].samples.size(1) >= self.shortest]
        if with_audio:
            self._decode(with_audio)
        return ready

    def _decode(self, slots: list[int]) -> None:
        windows = [self.buffers[slot].samples[0] for slot in slots]
        lengths = torch.tensor([len(window) for window in windows], device=self.device)
        signal = pad_sequence(windows, batch_first=True).to(self.device)
        features, frames = self.model.preprocessor(input_signal=signal, length=lengths)
        encoded, encoded_lengths, *_ = self.model.encoder(audio_signal=features, length=frames)
        # Each row moves to the left by the frames before its chunk.
        contexts = [self.buffers[slot].context_size.subsample(self.window.unit) for slot in slots]
        valid = [
            int(length) - context.left if self.finished[slot] else context.chunk
            for slot, length, context in zip(slots, encoded_lengths, contexts)
        ]
        chunks = encoded.new_zeros(len(slots), encoded.size(1), max(valid))
        for row, whole, context, count in zip(chunks, encoded, contexts, valid):
            row[:, :count] = whole[:, context.left : context.left + count]
        if chunks.size(2):
            added = self.decoder.decode(slots, chunks, torch.tensor(valid, device=self.device))
            for slot, tokens in zip(slots, added):
                self.texts[slot].extend([token for token, _ in tokens])
                if self.times is not None:
                    self.times.extend(slot, tokens, self.decoder.frames[slot])

    def _advance(self, slot: int) -> None:
        """Move the window of a stream to the next chunk. The chunk of the last window ends with the stream."""
        taken = min(self._needed(slot), len(self.new[slot]))
        samples, self.new[slot] = self.new[slot][:taken], self.new[slot][taken:]
        self.finished[slot] = self.last[slot] and not len(self.new[slot])
        last = self.finished[slot]
        self.buffers[slot].add_audio_batch_(
            samples[None], torch.tensor([taken]), is_last_chunk=last, is_last_chunk_batch=torch.tensor([last])
        )
        self._begin_with_a_pair(self.buffers[slot])
        self.first[slot] = False

    def _begin_with_a_pair(self, buffer: Any) -> None:
        """Remove the first samples of the last window of a stream, so that the window begins with a pair of frames."""
        extra = buffer.context_size.left % (TOGETHER * self.window.unit)
        buffer.context_size.left -= extra
        buffer.samples = buffer.samples[:, extra:]

    def _needed(self, slot: int) -> int:
        """Return the number of new samples of the next window."""
        return self.window.chunk + self.window.ahead * self.first[slot]

    def _buffer(self) -> Any:
        from nemo.collections.asr.parts.utils.streaming_utils import ContextSize, StreamingBatchedAudioBuffer

        past, chunk, ahead, _ = self.window
        return StreamingBatchedAudioBuffer(1, ContextSize(past, chunk, ahead), torch.float32, torch.device("cpu"))


def choose_window(
    model: Any, milliseconds: int | None = None, chunk: float | None = None, window: float | None = None
) -> tuple[Window, str]:
    """Return the parts of a window, and a description of the latency.

    Args:
        model: a NeMo ASR model.
        milliseconds: the latency, which is the length of the chunk and the part after the chunk; None for twice
            ``chunk``.
        chunk: seconds of new audio in a window; None for half the latency, or 2 seconds.
        window: seconds of a whole window; None for 10 seconds before the chunk.

    Raises:
        ValueError: the length of an encoder frame is unknown.
        UserError: the chunk is as long as the latency, or the latency is longer than the window.
    """
    if not hasattr(model.encoder, "subsampling_factor"):
        raise ValueError(f"an encoder of class {type(model.encoder).__name__} has no subsampling_factor")
    seconds, rate = TOGETHER * frame_seconds(model), model.preprocessor._sample_rate
    given = None if milliseconds is None else milliseconds / 1000
    wanted = chunk or (CHUNK if given is None else given / 2)
    latency = given or wanted + (AHEAD if chunk is None else wanted)
    whole = window or latency + PAST
    chunks = max(round(wanted / seconds), 1)
    ahead = round(latency / seconds) - chunks
    past = round(whole / seconds) - chunks - ahead
    if ahead < 1:
        raise UserError(
            f"a chunk of {chunks * seconds:g} s with a latency of {latency:g} s has no audio after the chunk; pass a "
            f"longer --latency or a shorter --chunk, which differ by at least {seconds:g} s"
        )
    if past < 0:
        raise UserError(
            f"--window {whole:g}: the window is shorter than the latency of {latency:g} s; pass a longer --window or a "
            "shorter --latency"
        )
    unit = round(seconds * rate)
    made = Window(past * unit, chunks * unit, ahead * unit, unit // TOGETHER)
    return made, (
        f"{1000 * (made.chunk + made.ahead) / rate:.0f} ms (windows of {sum(made[:3]) / rate:g} s: "
        f"{made.past / rate:g} s before a chunk, a chunk of {made.chunk / rate:g} s, {made.ahead / rate:g} s after it)"
    )
