"""Tests of the times of words, and of utterances that end with a pause."""

from __future__ import annotations

import random

import pytest

from nemo_squeezeformer.transcription.word_times import Span, WordTimes, in_seconds

PIECES = ["▁one", "▁t", "wo", "▁", "three", ",", "▁four▁fi", "ve"]


def write(tokens: list[int]) -> str:
    """Return the text of ``PIECES``, without the first space and without a space before the comma."""
    return "".join(PIECES[token] for token in tokens).replace("▁", " ").removeprefix(" ").replace(" ,", ",")


def timed(tokens: list[tuple[int, int]], silence: int | None = None, frames: int = 100) -> WordTimes:
    """Return the words of ``tokens``, which arrive at once. The audio has ``frames`` frames."""
    times = WordTimes(write, silence)
    times.extend(tokens)
    times.advance(frames)
    times.finish()
    return times


def test_a_word_begins_with_its_first_token_and_ends_with_its_last_token():
    found = timed([(0, 3), (1, 7), (2, 9), (3, 12), (4, 15), (5, 16)])
    assert found.words == [Span("one", 3, 4), Span("two", 7, 10), Span("three,", 15, 17)]
    rows = in_seconds(found.words, "word", 0.04)
    assert rows[1] == {"word": "two", "start": 0.28, "end": 0.4}


def test_a_token_can_end_a_word_and_begin_the_next_word():
    found = timed([(1, 2), (6, 5), (7, 6)])
    assert found.words == [Span("t", 2, 3), Span("four", 5, 6), Span("five", 5, 7)]


def test_a_pause_ends_an_utterance():
    tokens = [(0, 3), (1, 7), (2, 9), (0, 30), (0, 33)]
    found = timed(tokens, silence=20)
    assert found.utterances() == [Span("one two", 3, 10), Span("one one", 30, 34)]
    assert timed(tokens, silence=21).utterances() == [Span("one two one one", 3, 34)]
    assert timed(tokens).utterances() == [Span("one two one one", 3, 34)]  # only the end of the audio ends it
    assert found.utterances(1) == [Span("one one", 30, 34)] and timed([]).utterances() == []


def test_the_token_after_a_pause_begins_a_new_word():
    assert timed([(1, 2), (2, 30)], silence=20).words == [Span("t", 2, 3), Span("wo", 30, 31)]
    assert timed([(1, 2), (2, 30)]).words == [Span("two", 2, 31)]


def test_an_utterance_ends_before_the_next_token_arrives():
    times = WordTimes(write, 20)
    times.extend([(0, 3)])
    times.advance(23)
    assert times.utterances() == []
    times.advance(24)
    times.advance(60)
    assert times.utterances() == [Span("one", 3, 4)]
    times.finish()
    assert times.utterances() == [Span("one", 3, 4)]


@pytest.mark.parametrize("seed", range(5))
def test_chunks_of_any_length_give_the_same_words_and_utterances(seed):
    rng = random.Random(seed)
    frames = sorted(rng.randrange(400) for _ in range(60))
    tokens = [(rng.randrange(len(PIECES)), frame) for frame in frames]
    expected = timed(tokens, silence=9, frames=400)
    assert len(expected.ends) > 5
    times, at = WordTimes(write, 9), 0
    while at < 400:
        stop = min(at + rng.randint(1, 50), 400)
        times.extend([token for token in tokens if at <= token[1] < stop])
        times.advance(stop)
        at = stop
    times.finish()
    assert times.words == expected.words and times.ends == expected.ends
    text = write([token for token, _ in tokens])
    assert [word.text for word in timed(tokens).words] == text.split()
    assert "".join(word.text for word in times.words) == text.replace(" ", "")


def test_the_rule_of_pauses_is_the_rule_of_nemo():
    endpointing = pytest.importorskip("nemo.collections.asr.inference.streaming.endpointing.greedy.greedy_endpointing")
    torch = pytest.importorskip("torch")
    if not hasattr(endpointing.GreedyEndpointing, "detect_eou_given_timestamps"):
        pytest.skip("this NeMo has no rule for times of tokens")
    rule = endpointing.GreedyEndpointing(vocabulary=[], ms_per_timestep=40, stop_history_eou=400)
    for frames in (15, 16, 17):
        ended, _ = rule.detect_eou_given_timestamps(torch.tensor([2, 5]), torch.tensor([0, 0]), frames)
        times = WordTimes(write, 11)  # NeMo needs more than 10 frames of 40 ms
        times.extend([(0, 2), (0, 5)])
        times.advance(frames)
        assert bool(times.ends) == ended == (frames == 17)
