"""Words with times, read from the timestamps of NeMo."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Word(NamedTuple):
    """A word without spaces, with its start and end in seconds."""

    text: str
    start: float
    end: float


def words_of(timestamps: Iterable[Mapping[str, Any]], offset: float = 0.0) -> list[Word]:
    """Return the words of NeMo's timestamps.

    A segment with several words is divided in proportion to the lengths of the words.

    Args:
        timestamps: mappings with ``word`` or ``segment``, ``start`` and ``end``, for example
            ``hypothesis.timestamp["word"]``.
        offset: seconds that are added to all times.
    """
    found = list[Word]()
    for item in timestamps:
        texts = str(item.get("word", item.get("segment", ""))).split()
        found += divided(texts, float(item["start"]) + offset, float(item["end"]) + offset)
    return found


def divided(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """Return a word for each text. The time from ``start`` to ``end`` is divided in proportion to the lengths."""
    total, before, words = sum(map(len, texts)), 0, list[Word]()
    for text in texts:
        after = before + len(text)
        words.append(Word(text, *(start + (end - start) * part / total for part in (before, after))))
        before = after
    return words


def in_order(words: Iterable[Word]) -> list[Word]:
    """Return the words with times that never go back: no word starts before the start of the word before it."""
    ordered, latest = list[Word](), 0.0
    for word in words:
        latest = max(latest, word.start)
        ordered.append(Word(word.text, latest, max(word.end, latest)))
    return ordered


def columns(text: str) -> int:
    """Return the width of a text. A wide character, for example of Chinese, has the width of two letters."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def at_most(words: Iterable[Word], width: int) -> list[Word]:
    """Return the words. A word wider than ``width`` is divided into parts of nearly equal length.

    Languages without spaces have such words.
    """
    found = list[Word]()
    for word in words:
        wide = columns(word.text)
        # Parts with equal numbers of characters can have different widths. One more part makes all parts narrow enough.
        count = 1 if wide <= width else min(-(-wide // width) + (wide > len(word.text)), len(word.text))
        ends = [len(word.text) * number // count for number in range(count + 1)]
        found += divided([word.text[a:b] for a, b in zip(ends, ends[1:])], word.start, word.end)
    return found
