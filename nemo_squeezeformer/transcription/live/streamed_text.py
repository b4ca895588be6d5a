"""The text of a growing list of tokens. The cost of an update does not grow with the length of the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence

KEPT = 32  # tokens that are converted again at each update; no tokenizer looks back further


class StreamedText:
    """The text that the function ``write`` (token ids -> text) returns for all tokens of a stream.

    The object keeps the text of early tokens instead of the tokens. For this, the list of tokens is split at a position
    where the joined texts of the two parts equal the text of the whole list.
    """

    def __init__(self, write: Callable[[list[int]], str]):
        self.write = write
        self.tokens: list[int] = []
        self.before, self.after = "", ""  # the text of the dropped tokens, and the text of the kept tokens

    def __str__(self) -> str:
        return self.before + self.after

    def extend(self, tokens: Sequence[int]) -> None:
        """Append newly decoded tokens."""
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
