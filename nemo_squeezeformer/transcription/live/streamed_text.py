"""The text of tokens that keep coming, at a cost that does not grow with what has come before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

KEPT = 32  # tokens that are written anew each time: more than any tokenizer looks back


class StreamedText:
    """What ``write`` (ids -> text) makes of all the tokens, of which only the last few are kept.

    Tokens are let go of where writing them apart from those after them is seen to give the same text.
    """

    def __init__(self, write: Callable[[list[int]], str]):
        self.write = write
        self.tokens: list[int] = []
        self.before, self.after = "", ""  # the text of tokens that are gone, and of those that are kept

    def __str__(self) -> str:
        return self.before + self.after

    def extend(self, tokens: Sequence[int]) -> None:
        """Adds what was decoded."""
        if not tokens:
            return
        self.tokens += tokens
        self.after = self.write(self.tokens)
        if len(self.tokens) > 2 * KEPT:
            self._shorten()

    def _shorten(self) -> None:
        for split in range(len(self.tokens) - KEPT, 0, -1):
            first, rest = self.write(self.tokens[:split]), self.write(self.tokens[split:])
            for gap in ("", " "):
                if first + gap + rest == self.after:
                    self.before, self.after, self.tokens = self.before + first + gap, rest, self.tokens[split:]
                    return
