"""Tests of the benchmark that joins recordings and decodes them in several ways."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.long_audio import __main__ as long_audio
from benchmarks.long_audio import memory
from benchmarks.long_audio.recordings import RATE, Spoken, joined
from tests.samples.speech import write_manifest


def test_recordings_are_joined_to_the_given_length_in_changing_order():
    spoken = [Spoken(np.full(length, length, dtype=np.float32), f"text {length}") for length in (1600, 3200, 4800)]
    parts = joined(spoken, 0.2, random.Random(0))
    assert sum(len(samples) for samples, _ in parts) == 0.2 * 60 * RATE
    texts = [text for samples, text in parts if text]
    assert all(text == f"text {len(samples)}" for samples, text in parts if text)
    # Each recording occurs before the first repetition.
    assert set(texts[:3]) == set(texts[3:6]) == {text for _, text in spoken}
    assert texts != [text for _, text in joined(spoken, 0.2, random.Random(1)) if text]


def test_the_table_has_full_attention_only_for_the_first_length(ctc_file, tmp_path, capsys):
    pytest.importorskip("silero_vad", reason="the detection of speech needs silero-vad")
    manifest = write_manifest(tmp_path, utterances=3)
    given = ["--minutes", "0.1", "0.2", "--windows", "16", "--longest", "5"]
    long_audio.main([str(ctc_file), "--manifests", str(manifest), *given])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    rows = {cells[0]: cells[1:] for cells in lines[2:]}
    names = ["each utterance alone", "one call, full attention", "one call, window [16, 16]"]
    assert list(rows) == [*names, "cut at pauses, at most 5 s"]
    assert [name for name, cells in rows.items() if "-" in cells] == ["one call, full attention"]
    assert all(float(cells[0]) > 50 for cells in rows.values())  # the recordings are noise
    assert rows["cut at pauses, at most 5 s"][1] == "0"


@pytest.mark.slow
def test_the_memory_of_the_command_is_measured_for_each_length_and_way(ctc_file, tmp_path, capsys):
    pytest.importorskip("silero_vad", reason="the detection of speech needs silero-vad")
    manifest = write_manifest(tmp_path, utterances=3)
    memory.main([str(ctc_file), "--manifests", str(manifest), "--minutes", "0.1"])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [cells[0] for cells in lines[2:]] == list(memory.WAYS)
    assert all(0.2 < float(cells[1]) < 4 and float(cells[2]) > 1 for cells in lines[2:])  # NeMo needs most of both
    with pytest.raises(SystemExit, match="failed with status 2"):
        memory.main([str(tmp_path / "none.nemo"), "--manifests", str(manifest), "--minutes", "0.1"])
