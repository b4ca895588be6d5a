"""The decoding of recordings that are cut at pauses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.hypotheses import Result, decode_sounds
from nemo_squeezeformer.transcription.live.audio_blocks import FileBlocks
from nemo_squeezeformer.transcription.long_audio import batches
from nemo_squeezeformer.transcription.pauses.detector import Detector
from nemo_squeezeformer.transcription.pauses.joining import joined
from nemo_squeezeformer.transcription.pauses.pieces import Piece, pieces
from nemo_squeezeformer.transcription.speech import Sound, shortest_samples

TOGETHER = 900.0  # seconds of pieces that are in memory, so that batches have pieces of similar lengths
Results = Iterator[list[Result]]


class Recording:
    """A recording whose pieces are being decoded.

    Attributes:
        found: the results of the pieces, by the start of the piece in seconds.
        problem: the reason why the recording cannot be read to its end, or an empty string.
        left: number of pieces that are not decoded.
        read: True if there are no more pieces.
    """

    def __init__(self) -> None:
        self.found: dict[float, Any] = {}
        self.problem, self.left, self.read = "", 0, False

    def result(self) -> Result:
        """Return the result of the whole recording. The text is empty if the recording has a problem."""
        return Result("" if self.problem else joined(sorted(self.found.items())), self.problem)


def decode_cut(
    model: Any,
    config: Any,
    utterances: Sequence[Utterance],
    batch_size: int,
    channel: str | int,
    longest: float,
    with_words: Callable[[Results], Results] = iter,
) -> Results:
    """Return the results of the utterances in the given order, in lists of one or more utterances.

    Silence is left out. The pieces of several utterances are decoded together, the longest pieces first.

    Args:
        model: a NeMo ASR model.
        config: the result of ``hypotheses.decoding_config``.
        utterances: the utterances to decode.
        batch_size: maximum number of pieces in a batch.
        channel: the channel of audio with several channels: ``"average"`` or a number from 0.
        longest: maximum length of a piece in seconds.
        with_words: a function that completes the results of batches of pieces, before the pieces are joined.
    """
    import torch

    detector = Detector()
    rate: int = model.preprocessor._sample_rate
    shortest = shortest_samples(model.preprocessor)

    def decoded(pool: list[tuple[Recording, Piece]]) -> None:
        if not pool:
            return
        pool.sort(key=lambda each: -len(each[1].samples))
        samples = [torch.as_tensor(piece.samples) for _, piece in pool]
        sounds = [Sound(each if len(each) >= shortest else None) for each in samples]
        together = list(batches([len(piece.samples) / rate for _, piece in pool], batch_size))
        done = iter(pool)
        for batch in with_words(decode_sounds(model, config, sounds, together)):
            for result, (recording, piece) in zip(batch, done):
                # NeMo's hypothesis also has the probabilities of all tokens, which would need memory for each frame.
                recording.found[piece.start] = joined([(0.0, result.best)])
                recording.left -= 1

    def results() -> Results:
        waiting = deque[Recording]()
        pool, seconds = list[tuple[Recording, Piece]](), 0.0
        for utterance in utterances:
            recording = Recording()
            waiting.append(recording)
            blocks = FileBlocks(utterance, rate, channel)
            try:
                for piece in pieces(blocks, rate, detector, longest):
                    recording.left += 1
                    pool.append((recording, piece))
                    seconds += len(piece.samples) / rate
                    if seconds >= TOGETHER:
                        decoded(pool)
                        pool, seconds = [], 0.0
            finally:
                blocks.close()
            recording.problem, recording.read = blocks.problem, True
            if done := _done(waiting):
                yield done
        decoded(pool)
        yield _done(waiting)

    return results()


def _done(waiting: deque[Recording]) -> list[Result]:
    """Remove the recordings from the front of ``waiting`` that are complete, and return their results."""
    found = []
    while waiting and waiting[0].read and not waiting[0].left:
        found.append(waiting.popleft().result())
    return found
