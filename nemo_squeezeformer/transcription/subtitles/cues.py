"""The cues of subtitles: the words that are shown at one time, in one or two lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nemo_squeezeformer.transcription.subtitles.words import Word, at_most, columns, in_order

SENTENCE = (".", "!", "?", "…", "。", "！", "？")
CLAUSE = (",", ";", ":", "，", "、", "；", "：")
PAUSE = 0.5  # seconds between two words; a cue may end here like at the end of a sentence
APART = 2.0  # seconds between two words that are never in one cue
CLOSING = "\"'”’»)]"  # characters that can follow a punctuation mark


class Layout(NamedTuple):
    """The limits of a cue. The defaults are usual for subtitles.

    Attributes:
        width: maximum number of letters in a line. A cue has one or two lines.
        shortest: minimum time of a cue in seconds. The time is shorter only if the next cue starts earlier.
        longest: maximum time of a cue in seconds.
    """

    width: int = 42
    shortest: float = 1.0
    longest: float = 7.0


class Cue(NamedTuple):
    """One or two lines, with the start and the end of their time in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(words: Iterable[Word], layout: Layout = Layout()) -> list[Cue]:  # noqa: B008  a Layout cannot change
    """Return the cues for all words. The times of the cues never go back and do not overlap.

    A cue ends with a sentence, a clause or a pause if possible. Of all divisions into cues, the function chooses the
    division with the lowest sum of costs (``_cost``).
    """
    spoken = at_most(in_order(words), layout.width)
    widths = [columns(word.text) for word in spoken]
    lowest, first = [0.0], [0]  # for each number of words: the cost of their cues, and the first word of the last cue
    for end in range(1, len(spoken) + 1):
        costs = {}
        for start in range(end - 1, -1, -1):
            fits = _fit(widths[start:end], layout.width) and _together(spoken[start:end], layout)
            if start < end - 1 and not fits:
                break
            costs[lowest[start] + _cost(spoken, start, end, layout)] = start
        lowest.append(min(costs))
        first.append(costs[min(costs)])
    groups, end = list[Sequence[Word]](), len(spoken)
    while end:
        groups.append(spoken[first[end] : end])
        end = first[end]
    return _timed(groups[::-1], layout)


def lines_of(texts: Sequence[str], width: int) -> tuple[str, ...]:
    """Return the words in one line, or in two lines of similar length if one line is not enough.

    The first line ends with a punctuation mark if possible.
    """
    whole = " ".join(texts)
    splits = [(" ".join(texts[:at]), " ".join(texts[at:])) for at in range(1, len(texts))]
    fitting = [split for split in splits if max(map(columns, split)) <= width]
    if columns(whole) <= width or not fitting:
        return (whole,)
    return min(fitting, key=lambda split: abs(columns(split[0]) - columns(split[1])) - width / 2 * _ends(split[0]))


def _fit(widths: Sequence[int], width: int) -> bool:
    """Return True if words with these widths fit into two lines."""
    lines, used = 1, -1
    for each in widths:
        used += 1 + each
        if used > width:
            lines, used = lines + 1, each
    return lines <= 2


def _ends(text: str) -> float:
    """Return 1 if the text ends with the mark of a sentence, 0.7 for the mark of a clause, otherwise 0."""
    text = text.rstrip(CLOSING)
    return 1.0 if text.endswith(SENTENCE) else 0.7 if text.endswith(CLAUSE) else 0.0


def _together(words: Sequence[Word], layout: Layout) -> bool:
    """Return True if the times of the words allow one cue. All words but the first word are known to be together."""
    if len(words) == 1:
        return True
    return words[-1].end - words[0].start <= layout.longest and words[1].start - words[0].end < APART


def _cost(words: Sequence[Word], start: int, end: int, layout: Layout) -> float:
    """Return the cost of a cue with the words from ``start`` to ``end``.

    A cue costs 1. An end inside a clause costs up to 2. A cue that is too short costs up to 1. A pause inside a cue
    costs its seconds.
    """
    last, left = words[end - 1], math.inf if end == len(words) else words[end].start - words[end - 1].end
    pauses = (b.start - a.end for a, b in zip(words[start:end], words[start + 1 : end]))
    seconds = last.end + max(left, 0.0) - words[start].start
    stop = 1.0 if left >= PAUSE else max(_ends(last.text), max(left, 0.0) / PAUSE)
    return (
        1 + 2 * (1 - stop) + max(0.0, 1 - seconds / layout.shortest) + sum(pause for pause in pauses if pause >= PAUSE)
    )


def _timed(groups: Sequence[Sequence[Word]], layout: Layout) -> list[Cue]:
    """Return a cue for each group of words."""
    found, before = list[Cue](), 0.0
    for number, words in enumerate(groups):
        start = max(words[0].start, before)
        following = groups[number + 1][0].start if number + 1 < len(groups) else math.inf
        end = min(max(words[-1].end, start + layout.shortest), following, start + layout.longest)
        before = max(round(end, 3), round(start, 3) + 0.001)  # a cue of WebVTT ends after its start
        found.append(Cue(round(start, 3), before, lines_of([word.text for word in words], layout.width)))
    return found
