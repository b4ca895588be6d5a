"""The pieces of a recording, with their samples. Only a part of the recording is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks
from nemo_squeezeformer.transcription.pauses.cutting import SILENCE, Span, cut
from nemo_squeezeformer.transcription.pauses.detector import RATE, WINDOW, Detector

BLOCK = 300  # seconds of audio that are read at a time, a whole number of windows
EDGE = SILENCE + 0.5  # seconds before the last sample; a piece that ends there can become longer with more audio


class Piece(NamedTuple):
    """A piece of a recording.

    Attributes:
        start: seconds from the start of the recording.
        samples: the samples (T,) at the sample rate of the model.
    """

    start: float
    samples: Any


def pieces(blocks: AudioBlocks, rate: int, detector: Detector, longest: float) -> Iterator[Piece]:
    """Yield the pieces with speech, in their order. The memory does not grow with the length of the recording.

    If ``blocks`` has a problem, the last piece ends there.

    Args:
        blocks: the audio at ``rate``.
        rate: sample rate of the model in Hz.
        longest: maximum length of a piece in seconds.
    """
    kept = before = np.zeros(0, np.float32)  # the samples that are not in a piece so far, and the block before
    probabilities = list[float]()  # of the windows of ``kept``
    first, ended = 0, False  # number of the first window of ``kept``
    while not ended:
        block = blocks.read(BLOCK * rate)
        ended = len(block) < BLOCK * rate
        heard = _at_16_khz(block, rate)
        probabilities += detector.probabilities(heard, before)
        kept, before = np.concatenate([kept, block]), heard
        spans, done = _complete(probabilities, longest, ended)
        begin = round(first * WINDOW * rate / RATE)
        for span in spans:
            start, end = (round((first * WINDOW + sample) * rate / RATE) for sample in span)
            yield Piece(start / rate, kept[start - begin : end - begin].copy())  # a view would keep the block
        first, probabilities = first + done, probabilities[done:]
        kept = kept[round(first * WINDOW * rate / RATE) - begin :]


def _complete(probabilities: Sequence[float], longest: float, ended: bool) -> tuple[list[Span], int]:
    """Return the pieces that more audio does not change, and the number of windows that are no longer needed."""
    spans, edge = cut(probabilities, longest), len(probabilities) * WINDOW - int(EDGE * RATE)
    if ended:
        return spans, len(probabilities)
    if spans and spans[-1].end > edge:
        edge = spans.pop().start
    return spans, max(edge, 0) // WINDOW


def _at_16_khz(block: Any, rate: int) -> Any:
    if rate == RATE or not len(block):
        return block
    import soxr

    return soxr.resample(block, rate, RATE)[: BLOCK * RATE]
