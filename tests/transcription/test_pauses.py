"""Long recordings are cut in pauses, and the pieces are joined on one timeline."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("silero_vad", reason="the detection of speech needs silero-vad")
pytest.importorskip("espeakng_loader", reason="synthetic speech needs espeakng-loader")

import torch

from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks
from nemo_squeezeformer.transcription.pauses import pieces as pieces_module
from nemo_squeezeformer.transcription.pauses.detector import RATE, WINDOW, Detector
from nemo_squeezeformer.transcription.pauses.joining import joined
from nemo_squeezeformer.transcription.pauses.pieces import Piece, pieces
from tests.samples.talk import Talk, talk

PAUSES = (0.6, 0.8, 1.5, 0.5, 7.0, 0.7, 1.0, 0.45, 2.5, 0.6)
TOLERANCE = 0.05  # seconds; the sound of a sentence starts and ends softly


class Samples(AudioBlocks):
    """Blocks of samples that are in memory."""

    def __init__(self, samples: np.ndarray, rate: int):
        super().__init__(rate, rate)
        self.left = samples

    def source(self, samples: int) -> np.ndarray:
        block, self.left = self.left[:samples], self.left[samples:]
        return block

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def cut(detector: Detector, samples: np.ndarray, rate: int = RATE, longest: float = 20.0) -> list[Piece]:
    return list(pieces(Samples(samples, rate), rate, detector, longest))


def times(found: Sequence[Piece], rate: int = RATE) -> list[tuple[float, float]]:
    return [(piece.start, piece.start + len(piece.samples) / rate) for piece in found]


def check(found: Sequence[Piece], made: Talk, rate: int = RATE, longest: float = 20.0) -> None:
    """Check that all sentences are in pieces, and that no piece starts or ends in a sentence."""
    spans = times(found, rate)
    assert spans == sorted(spans) and all(a[1] <= b[0] + 1e-6 for a, b in zip(spans, spans[1:]))
    assert all(end - start <= longest + 1e-6 for start, end in spans)
    for start, end in made.spoken:
        assert any(a <= start + TOLERANCE and end - TOLERANCE <= b for a, b in spans), (start, end, spans)
    for piece, (start, _) in zip(found, spans):
        at = round(start * rate)
        assert np.array_equal(piece.samples, made.samples[at : at + len(piece.samples)])


@pytest.mark.parametrize("rate", [16_000, 8_000, 22_050, 48_000])
def test_cuts_are_in_pauses_and_silence_is_left_out(detector, rate):
    made = talk(PAUSES, rate)
    found = cut(detector, made.samples, rate, longest=5.0)
    check(found, made, rate, longest=5.0)
    assert 5 <= len(found) <= len(PAUSES)
    assert sum(end - start for start, end in times(found, rate)) < len(made.samples) / rate - 8
    assert len(cut(detector, made.samples, rate)) == 3  # without the two silences of 2.5 and 7 seconds


@pytest.mark.parametrize("seconds", [4, 8])
def test_the_length_of_the_blocks_does_not_change_where_sentences_are(detector, seconds, monkeypatch):
    made = talk(PAUSES)
    whole = cut(detector, made.samples, longest=5.0)
    monkeypatch.setattr(pieces_module, "BLOCK", seconds)
    found = cut(detector, made.samples, longest=5.0)
    check(found, made, longest=5.0)
    assert len(found) == len(whole)


def test_noise_and_silence_have_no_pieces(detector):
    rng = np.random.default_rng(0)
    for samples in (np.zeros(20 * RATE), 0.05 * rng.standard_normal(20 * RATE), np.zeros(100), np.zeros(0)):
        assert cut(detector, samples.astype(np.float32)) == []


def test_speech_in_noise_is_found(detector):
    made = talk(PAUSES, noise=0.01)
    check(cut(detector, made.samples), made)


def test_speech_without_a_pause_is_cut_at_the_longest_length_and_nothing_is_lost(detector):
    made = talk([0.3] + [0.0] * 9)
    found = cut(detector, made.samples, longest=4.0)
    spans = times(found)
    assert len(found) >= 5 and all(end - start <= 4.0 + 2 * WINDOW / RATE for start, end in spans)
    start, end = made.spoken[0][0], made.spoken[-1][1]
    assert spans[0][0] <= start + TOLERANCE and spans[-1][1] >= end - TOLERANCE
    lost = sum(b[0] - a[1] for a, b in zip(spans, spans[1:]))
    assert lost < 0.05 * (end - start)


def test_windows_computed_together_have_nearly_the_probabilities_of_one_window_at_a_time(detector):
    made = talk(PAUSES)
    together = np.array(detector.probabilities(made.samples, np.zeros(0, np.float32)))
    padded = torch.from_numpy(np.pad(made.samples, (0, -len(made.samples) % WINDOW)))
    detector.network.reset_states()
    with torch.inference_mode():
        each = np.array([float(detector.network(window, RATE)) for window in padded.split(WINDOW)])
    assert len(together) == len(each)
    assert np.mean((together > 0.5) == (each > 0.5)) > 0.97


def test_the_memory_does_not_grow_with_the_length_of_the_recording(detector, monkeypatch):
    monkeypatch.setattr(pieces_module, "BLOCK", 8)
    sentence = talk(PAUSES[:2]).samples

    class Repeated(Samples):
        def __init__(self, times: int):
            super().__init__(sentence, RATE)
            self.times = times

        def source(self, samples: int) -> np.ndarray:
            self.times -= 1
            return sentence if self.times >= 0 else sentence[:0]

    def peak(times: int) -> int:
        tracemalloc.start()
        for _ in pieces(Repeated(times), RATE, detector, 5.0):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(9) < 1.2 * peak(4)


def test_the_import_of_the_detector_keeps_the_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Detector()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def hypothesis(text: str, score: float, start: float, confidence: Any = None) -> Any:
    words = [{"word": word, "start": start + n, "end": start + n + 0.5} for n, word in enumerate(text.split())]
    timestamp = {"word": words, "segment": [{"segment": text, "start": start, "end": start + 2.0}], "timestep": []}
    return SimpleNamespace(text=text, score=score, timestamp=timestamp, word_confidence=confidence)


def test_texts_times_and_scores_are_joined_on_one_timeline():
    pytest.importorskip("nemo.collections.asr")
    found = joined([(1.0, hypothesis("one two", -1.5, 0.1)), (5.0, ""), (9.25, hypothesis("three", -2.0, 0.25))])
    assert (found.text, found.score, found.word_confidence) == ("one two three", -3.5, None)
    assert [(w["word"], w["start"], w["end"]) for w in found.timestamp["word"]] == [
        ("one", 1.1, 1.6),
        ("two", 2.1, 2.6),
        ("three", 9.5, 10.0),
    ]
    assert [(s["segment"], s["start"]) for s in found.timestamp["segment"]] == [("one two", 1.1), ("three", 9.5)]
    sure = joined([(0.0, hypothesis("a", 0.0, 0.0, [0.5])), (1.0, hypothesis("b c", 0.0, 0.0, [0.25, 1.0]))])
    assert sure.word_confidence == [0.5, 0.25, 1.0]


def test_texts_without_hypotheses_are_joined_and_no_pieces_have_an_empty_text():
    assert joined([]) == "" == joined([(0.0, "")])
    assert joined([(0.0, "one"), (2.0, ""), (3.0, " two three ")]) == "one two three"
