"""The words and the utterances of several simultaneous streams, with times in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nemo_squeezeformer.transcription.word_times import WordTimes, in_seconds

Row = dict[str, Any]  # the text in the field of its kind, and ``start`` and ``end`` in seconds


class StreamTimes:
    """The complete words and the ended utterances of each stream. Each stream has a slot, which is a number from 0.

    Args:
        write: the text of a list of tokens.
        slots: the number of streams.
        frame_seconds: length of an encoder frame in seconds.
        words: if True, ``rows`` returns words.
        silence: seconds without a token that end an utterance; None if ``rows`` returns no utterances.
    """

    def __init__(
        self,
        write: Callable[[list[int]], str],
        slots: int,
        frame_seconds: float,
        words: bool = True,
        silence: float | None = None,
    ):
        self.write, self.frame_seconds = write, frame_seconds
        self.frames = None if silence is None else max(round(silence / frame_seconds), 1)
        self.kinds = [kind for kind, used in (("word", words), ("utterance", silence is not None)) if used]
        self.streams = [self._new() for _ in range(slots)]
        self.finished = [False] * slots

    def open(self, slot: int) -> None:
        """Begin a new stream in ``slot``."""
        self.streams[slot], self.finished[slot] = self._new(), False

    def extend(self, slot: int, tokens: Sequence[tuple[int, int]], frames: int) -> None:
        """Append tokens with their frames. ``frames`` is the number of frames of the stream so far."""
        self.streams[slot].extend(tokens)
        self.streams[slot].advance(frames)

    def finish(self, slot: int) -> None:
        """Mark the end of the stream: its last word is complete, and its last utterance ends."""
        self.streams[slot].finish()
        self.finished[slot] = True

    def rows(self, slot: int, kind: str, first: int = 0) -> list[Row]:
        """Return the complete rows of a stream, from the row with the number ``first``.

        Args:
            slot: the slot of the stream.
            kind: ``word`` or ``utterance``.
            first: the number of rows to leave out. The cost does not grow with this number.
        """
        times = self.streams[slot]
        if kind == "utterance":
            return in_seconds(times.utterances(first), kind, self.frame_seconds)
        complete = len(times.words) - (not self.finished[slot])  # the last word can still become longer
        return in_seconds(times.words[first : max(complete, first)], kind, self.frame_seconds)

    def _new(self) -> WordTimes:
        return WordTimes(self.write, self.frames)
