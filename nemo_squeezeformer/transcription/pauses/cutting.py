"""The division of a recording into pieces that begin and end in pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nemo_squeezeformer.transcription.pauses.detector import RATE, WINDOW

LONG = 60.0  # seconds from which a recording is cut by default
LONGEST = 20.0  # default maximum of the seconds of a piece
PAUSE = 0.2  # seconds without speech between two spans of speech
SILENCE = 2.0  # seconds without speech that are left out
MARGIN = 0.1  # seconds of a pause that a span has before and after the speech
THRESHOLD = 0.3  # probability from which a window has speech; lower than usual, because a lost word is worse than noise
SHORTEST = 0.06  # seconds; shorter speech is a click


class Span(NamedTuple):
    """A part of a recording, from the sample ``start`` to before the sample ``end`` at ``RATE``."""

    start: int
    end: int


def cut(probabilities: Sequence[float], longest: float) -> list[Span]:
    """Return the pieces of a recording. A piece has several spans of speech, and the pauses between them.

    In a short piece, a model sees little context. A piece is therefore at least half as long as ``longest``, except
    before a silence of ``SILENCE`` seconds and at the end of the recording. Where the next span of speech does not fit
    into the piece, the piece ends at the longest pause in the second half of ``longest``.

    Args:
        probabilities: the probability of speech in each window.
        longest: maximum length of a piece in seconds.
    """
    spans, found, first = speech(probabilities, longest), list[Span](), 0
    while first < len(spans):
        last = first
        fitting = [last]
        while last + 1 < len(spans) and _pause(spans, last) < (SILENCE - 2 * MARGIN) * RATE:
            last += 1
            if spans[last].end - spans[first].start > longest * RATE:
                late = [at for at in fitting if spans[at].end - spans[first].start >= longest * RATE / 2]
                fitting = [max(late or fitting, key=lambda at: _pause(spans, at))]
                break
            fitting.append(last)
        found.append(Span(spans[first].start, spans[fitting[-1]].end))
        first = fitting[-1] + 1
    return found


def speech(probabilities: Sequence[float], longest: float) -> list[Span]:
    """Return the spans with speech. Audio between two spans has no speech.

    Speech that is longer than ``longest`` seconds is cut at the longest pause inside of it. If there is no pause, the
    speech is cut at ``longest`` seconds.
    """
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    found = get_speech_timestamps_from_probs(
        probabilities,
        threshold=THRESHOLD,
        sampling_rate=RATE,
        min_speech_duration_ms=int(1000 * SHORTEST),
        max_speech_duration_s=longest,
        min_silence_duration_ms=int(1000 * PAUSE),
        speech_pad_ms=int(1000 * MARGIN),
        audio_length_samples=len(probabilities) * WINDOW,
    )
    return [Span(each["start"], each["end"]) for each in found]


def _pause(spans: Sequence[Span], at: int) -> int:
    """Return the number of samples between a span and the next span."""
    return spans[at + 1].start - spans[at].end
