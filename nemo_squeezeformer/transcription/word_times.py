"""The times of words, and the utterances between pauses, from the frames of the tokens.

The module needs only the Python standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nemo_squeezeformer.transcription.live.streamed_text import StreamedText


class Span(NamedTuple):
    """A text from the encoder frame ``start`` to before the encoder frame ``end``."""

    text: str
    start: int
    end: int


class WordTimes:
    """The words of a growing list of tokens, with the frames of each word.

    A word begins with the frame of its first token, and ends after the frame of its last token. The text between two
    spaces is a word. The cost of a token does not grow with the number of earlier words.

    An utterance ends if no token follows during ``silence`` frames. The next token then begins a new word. NeMo's class
    ``GreedyEndpointing`` has the same rule for the end of an utterance. The length of the chunks in which the tokens
    arrive does not change the utterances.

    Args:
        write: the text of a list of tokens.
        silence: number of frames without a token that end an utterance; None if utterances are not needed.

    Attributes:
        words: the words so far. The last word can become longer.
        ends: for each utterance that has ended, the number of words up to its end.
    """

    def __init__(self, write: Callable[[list[int]], str], silence: int | None = None):
        self.write, self.silence = write, silence
        self.words: list[Span] = []
        self.ends: list[int] = []
        self._last = StreamedText(write)  # the text of the tokens since the first token of the last word

    def extend(self, tokens: Sequence[tuple[int, int]]) -> None:
        """Append tokens. A token is a number and its frame. The frames do not decrease."""
        for token, frame in tokens:
            self.advance(frame)
            self._add(token, frame)

    def advance(self, frames: int) -> None:
        """End the utterance if no token is in the last frames. ``frames`` is the number of frames so far."""
        if self.silence is not None and self.words and frames - self.words[-1].end >= self.silence:
            self.finish()

    def finish(self) -> None:
        """End the utterance. At the end of the audio, the last utterance ends without a pause."""
        if len(self.words) > (self.ends[-1] if self.ends else 0):
            self.ends.append(len(self.words))
            self._last = StreamedText(self.write)

    def utterances(self, first: int = 0) -> list[Span]:
        """Return the utterances that have ended, from the utterance with the number ``first``."""
        bounds = [self.ends[first - 1] if first else 0, *self.ends[first:]]
        return [joined(self.words[start:end]) for start, end in zip(bounds, bounds[1:])]

    def _add(self, token: int, frame: int) -> None:
        before = str(self._last).split()
        self._last.extend([token])
        after = str(self._last).split()
        if len(after) <= len(before):
            if after != before and self.words:
                self.words[-1] = Span(after[-1] if after else "", self.words[-1].start, frame + 1)
            return
        if before:  # a token can contain the end of a word and the beginning of the next word
            self.words[-1] = self.words[-1]._replace(text=after[len(before) - 1])
        self.words += [Span(word, frame, frame + 1) for word in after[len(before) :]]
        self._last = StreamedText(self.write)
        self._last.extend([token])


def joined(words: Sequence[Span]) -> Span:
    """Return the text of several words, from the start of the first word to the end of the last word."""
    return Span(" ".join(word.text for word in words), words[0].start, words[-1].end)


def in_seconds(spans: Sequence[Span], kind: str, frame_seconds: float) -> list[dict[str, str | float]]:
    """Return rows with the text in the field ``kind``, and with ``start`` and ``end`` in seconds.

    Args:
        spans: words or utterances.
        kind: ``word`` or ``utterance``.
        frame_seconds: length of an encoder frame in seconds.
    """
    return [
        {kind: span.text, "start": round(span.start * frame_seconds, 3), "end": round(span.end * frame_seconds, 3)}
        for span in spans
    ]
