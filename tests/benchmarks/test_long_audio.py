"""Tests of the benchmark that joins recordings and transcribes them in one call."""

from __future__ import annotations

import random

import numpy as np

from benchmarks.long_audio import __main__ as long_audio
from tests.samples.speech import write_manifest


def test_recordings_are_joined_to_the_given_length_in_changing_order():
    spoken = [(np.full(length, length, dtype=np.float32), f"text {length}") for length in (1600, 3200, 4800)]
    parts = long_audio.joined(spoken, 0.2, random.Random(0))
    assert sum(len(samples) for samples, _ in parts) == 0.2 * 60 * long_audio.RATE
    texts = [text for samples, text in parts if text]
    assert all(text == f"text {len(samples)}" for samples, text in parts if text)
    # Each recording occurs before the first repetition.
    assert set(texts[:3]) == set(texts[3:6]) == {text for _, text in spoken}
    assert texts != [text for _, text in long_audio.joined(spoken, 0.2, random.Random(1)) if text]


def test_the_tables_have_cut_utterances_only_for_the_first_length(ctc_file, tmp_path, capsys):
    manifest = write_manifest(tmp_path, utterances=3)
    given = ["--minutes", "0.1", "0.2", "--windows", "16"]
    long_audio.main([str(ctc_file), str(manifest), *given])
    rows = [
        line.split(" | ")[0].strip("| ")
        for line in capsys.readouterr().out.splitlines()
        if "[16" in line or "cut" in line
    ]
    assert rows == ["cut into its utterances", "one call, [16, 16]", "one call, [16, 16]"]
