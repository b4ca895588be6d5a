"""Subtitles: readable lines, times that never go back, and files that other programs read."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

import pytest

from nemo_squeezeformer.transcription.subtitles import Cue, Layout, Word, cues, srt, vtt, words_of
from tests.samples.paths import ROOT

PROSE = (
    "After this page you can transcribe files, folders and manifests. You can also get the times of words, and "
    "transcribe a recording of an hour in one call. Yes. The command prints one line for each file, in the order of "
    "the input: the path, a tab, and the text."
)
TEXT = PROSE.split()


def spoken(texts: Sequence[str], pauses: dict[int, float] | None = None, seed: int = 0) -> list[Word]:
    """Return words of different lengths. ``pauses`` has the seconds after the word with a number."""
    rng, now, words = random.Random(seed), 0.4, []
    for number, text in enumerate(texts):
        end = now + 0.1 + 0.05 * len(text)
        words.append(Word(text, now, end))
        now = end + (pauses or {}).get(number, rng.choice([0.0, 0.04, 0.1]))
    return words


def check(made: Sequence[Cue], words: Sequence[Word], layout: Layout = Layout()) -> None:  # noqa: B008
    """Check the rules for all cues, and that the cues have all words in their order and at their times."""
    assert " ".join(line for cue in made for line in cue.lines).split() == [word.text for word in words]
    at = 0
    for cue, following in zip(made, [*made[1:], None]):
        inside = words[at : at + len(" ".join(cue.lines).split())]
        at += len(inside)
        assert 1 <= len(cue.lines) <= 2 and all(len(line) <= layout.width for line in cue.lines)
        assert 0 < cue.end - cue.start <= layout.longest + 0.001
        assert following is None or cue.end <= following.start
        assert cue.start <= inside[0].start + 0.001 and cue.end >= inside[-1].end - 0.001
        if following is None or following.start - cue.start >= layout.shortest:
            assert cue.end - cue.start >= layout.shortest - 0.002


@pytest.mark.parametrize("seed", range(5))
def test_cues_have_all_words_at_their_times_in_one_or_two_lines(seed):
    words = spoken(TEXT * 3, seed=seed)
    check(cues(words), words)
    narrow = Layout(width=20, shortest=0.5, longest=2.5)
    check(cues(words, narrow), words, narrow)


def test_cues_end_with_sentences_and_clauses_and_lines_end_with_clauses():
    made = cues(spoken(TEXT))
    lasts = [cue.lines[-1][-1] for cue in made]
    assert all(mark in ".,:" for mark in lasts) and lasts.count(".") >= 3
    assert ("in the order of the input:", "the path, a tab, and the text.") in [cue.lines for cue in made]


def test_cues_end_at_pauses_if_there_is_no_punctuation():
    texts = [text.strip(".,:").lower() for text in TEXT]
    pauses = {6: 0.8, 15: 0.6, 30: 5.0}
    words = spoken(texts, pauses)
    made = cues(words)
    check(made, words)
    ends = [sum(len(" ".join(cue.lines).split()) for cue in made[: number + 1]) - 1 for number in range(len(made))]
    assert set(pauses) <= set(ends)


def test_words_after_a_long_pause_are_in_another_cue():
    words = [Word("one", 1.0, 1.2), Word("two", 3.3, 3.5), Word("three", 3.6, 3.9)]
    assert cues(words) == [Cue(1.0, 2.0, ("one",)), Cue(3.3, 4.3, ("two three",))]


def test_times_never_go_back_even_if_the_times_of_the_words_do():
    words = [
        Word("a", 2.0, 9.5),
        Word("b", 1.0, 1.0),
        Word("c", 1.0, 4.0),
        Word("d", 30.0, 29.0),
        Word("e", 30.0, 99.0),
    ]
    made = cues(words)
    assert " ".join(" ".join(cue.lines) for cue in made) == "a b c d e"
    times = [time for cue in made for time in (cue.start, cue.end)]
    assert times == sorted(times) and all(cue.start < cue.end <= cue.start + 7.001 for cue in made)


def test_many_words_at_one_time_have_cues_that_last():
    made = cues([Word("sixteen-letters-", 1.0, 1.0)] * 40)
    assert len(made) > 5
    times = [time for cue in made for time in (cue.start, cue.end)]
    assert times == sorted(times) and all(cue.start < cue.end for cue in made)


@pytest.mark.parametrize("decoder", ["transducer", "CTC"])
def test_cues_have_the_true_times_of_words_within_the_errors_of_the_timestamps(decoder, digits):
    """The words have their true times with the median errors of ``benchmarks/results/timestamps.md``."""
    page = (ROOT / "benchmarks" / "results" / "timestamps.md").read_text()
    [cells] = re.findall(rf"^\| hybrid \| {decoder} \|(.*)$", page, flags=re.MULTILINE)
    *_, starts, ends, _ = (cell.strip() for cell in cells.split("|"))
    late, error = (int(each) / 1000 for each in re.findall(r"[+-]?\d+", starts)[1:] + [ends])
    rows = [json.loads(line) for line in (digits / "connected_test_seen.jsonl").read_text().splitlines()]
    count = 0
    for row in rows:
        true = row["words"]
        made = cues([Word(word["word"], max(word["start"] + late, 0.0), word["end"] + error) for word in true])
        shown = [(cue.start, cue.end) for cue in made for _ in " ".join(cue.lines).split()]
        for word, (start, end) in zip(true, shown, strict=True):
            assert start < word["end"] and word["start"] < end
            assert start <= word["start"] + max(late, 0.0) + 0.001 and end >= word["end"] - 0.001
            count += 1
    assert count == 212


def test_a_text_without_spaces_is_divided_into_lines():
    [word] = [Word("漢" * 90, 2.0, 20.0)]
    made = cues([word])
    assert "".join(line for cue in made for line in cue.lines) == word.text
    assert all(10 <= len(line) <= 21 for cue in made for line in cue.lines)  # wide characters count twice
    assert (made[0].start, made[-1].end) == (2.0, 20.0)


def test_a_segment_divides_its_time_between_its_words():
    found = words_of([{"segment": "one three", "start": 1.0, "end": 2.6}], offset=10.0)
    assert [(word.text, round(word.start, 6), round(word.end, 6)) for word in found] == [
        ("one", 11.0, 11.6),
        ("three", 11.6, 12.6),
    ]
    assert words_of([{"word": "", "start": 0.0, "end": 1.0}]) == []


@pytest.fixture(scope="module")
def long_cues() -> list[Cue]:
    """The cues of 100 hours with characters that have a meaning in files of subtitles."""
    start = 100 * 3600 - 1.0
    return cues([Word(text, start + 3 * n, start + 3 * n + 1.2345) for n, text in enumerate(["a<b>&c", "-->", "é漢"])])


def test_srt_is_read_by_the_package_srt(long_cues):
    parser = pytest.importorskip("srt")
    read = list(parser.parse(srt(long_cues)))
    assert [(s.index, s.start.total_seconds(), s.end.total_seconds(), s.content) for s in read] == [
        (number, cue.start, cue.end, "\n".join(cue.lines)) for number, cue in enumerate(long_cues, 1)
    ]
    words = spoken(TEXT)
    assert [s.content.split("\n") for s in parser.parse(srt(cues(words)))] == [list(c.lines) for c in cues(words)]
    assert list(parser.parse(srt([]))) == []


def test_webvtt_is_read_by_the_package_webvtt(long_cues):
    parser = pytest.importorskip("webvtt")

    found = list(parser.from_string(vtt(long_cues)))
    assert [(c.start_in_seconds, c.text) for c in found] == [
        (int(c.start), "\n".join(c.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
        for c in long_cues
    ]
    assert [c.start for c in found] == ["99:59:59.000", "100:00:02.000", "100:00:05.000"]
    assert list(parser.from_string(vtt([]))) == []
