"""Tests that recordings that cannot be read do not stop the transcription of the other recordings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("nemo.collections.asr")

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.bad_recordings import (
    write_broken_in_the_middle,
    write_cut,
    write_empty,
    write_good,
    write_no_header,
    write_value,
)
from tests.samples.speech import RATE, noise

BAD = {
    "b.wav": write_no_header,
    "d.flac": write_broken_in_the_middle,
    "e.wav": write_empty,
    "g.wav": lambda path: write_value(path, math.nan),
    "h.mp3": write_cut,
    "i.wav": lambda path: write_value(path, -math.inf),
    "j.wav": lambda path: write_value(path, 1e30),
}
GOOD = ("a.wav", "c.wav", "f.wav", "k.wav")


@pytest.fixture(scope="module")
def model(ctc_file):
    return load_model(str(ctc_file), torch.device("cpu"))


@pytest.fixture(autouse=True)
def restored_once(monkeypatch, model):
    """Restore the model only once, because this takes longer than the rest of these tests."""
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: model)


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "recordings"
    made.mkdir()
    for seed, name in enumerate(GOOD):
        write_good(made / name, 0.4 + 0.1 * seed, seed)
    for name, write in BAD.items():
        write(made / name)
    return made


def run(*arguments: object) -> int:
    return main(["transcribe", *map(str, arguments), "--device", "cpu"])


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (0, 16), (2, 3)])
def test_every_file_of_a_folder_has_a_row_in_order(workers, batch_size, ctc_file, folder, tmp_path, capsys):
    out, alone = tmp_path / "out.jsonl", tmp_path / "alone.jsonl"
    status = run(ctc_file, folder, "--output", out, "--num-workers", workers, "--batch-size", batch_size)
    err = capsys.readouterr().err
    rows = read(out)
    assert status == 1
    assert [Path(row["audio_filepath"]).name for row in rows] == sorted([*GOOD, *BAD])
    for row in rows:
        name = Path(row["audio_filepath"]).name
        assert set(row) == {"audio_filepath", "error" if name in BAD else "pred_text"}
        assert name in GOOD or name in row["error"]
    run(ctc_file, *(folder / name for name in GOOD), "--output", alone)
    assert [row["pred_text"] for row in rows if "pred_text" in row] == [row["pred_text"] for row in read(alone)]
    assert all(row["pred_text"] for row in read(alone))
    assert "7 of 11 utterances could not be read:\n" in err and "... and 2 more" in err
    assert not list(tmp_path.glob("*.partial"))


def test_without_output_bad_files_are_named_on_stderr_only(ctc_file, folder, capsys):
    assert run(ctc_file, folder, "--batch-size", 2) == 1
    out, err = capsys.readouterr()
    assert [Path(line.split("\t")[0]).name for line in out.splitlines()] == list(GOOD)
    assert all(name in err for name in BAD)


def test_json_lines_on_stdout_have_a_row_for_each_file(ctc_file, folder, capsys):
    assert run(ctc_file, folder, "--timestamps") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(Path(row["audio_filepath"]).name for row in rows) == sorted([*GOOD, *BAD])
    assert sum("error" in row for row in rows) == len(BAD)


@pytest.mark.parametrize(
    ("value", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1e30, "1e.30")]
)
def test_a_sample_that_is_not_finite_or_too_large_is_named_with_its_time(value, shown, ctc_file, tmp_path, capsys):
    good = write_good(tmp_path / "good.wav")
    assert run(ctc_file, good, write_value(tmp_path / "bad.wav", value, at=0.25)) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}\t") and out.count("\n") == 1
    assert f"bad.wav' has the sample {shown.replace('.', '+')} at 0.250 s" in err


def test_rows_of_a_manifest_that_cannot_be_used_have_an_error_and_their_fields(ctc_file, tmp_path, capsys):
    for number in range(3):
        write_good(tmp_path / f"{number}.wav", seed=number)
    write_broken_in_the_middle(tmp_path / "3.flac")
    rows = [
        {"audio_filepath": "0.wav", "text": "zero", "speaker": 1},
        {"audio_filepath": "1.wav", "text": "one", "offset": 7.0, "duration": 1.0},
        {"audio_filepath": "gone.wav", "text": "two"},
        {"audio_filepath": "2.wav", "text": "three", "pred_text": "old", "error": "old"},
        {"audio_filepath": "3.flac", "text": "four", "pred_text": "old"},
    ]
    manifest, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not JSON\n")
    assert run(ctc_file, manifest, "--output", out) == 1
    found = read(out)
    kept = [{name: row[name] for name in row if name not in ("pred_text", "error")} for row in found]
    assert kept == [{n: row[n] for n in row if n not in ("pred_text", "error")} for row in rows] + [{}]
    assert ["error" in row for row in found] == [False, True, True, False, True, True]
    assert ["pred_text" in row for row in found] == [True, False, False, True, False, False]
    assert '"old"' not in out.read_text()
    err = capsys.readouterr().err
    assert "2 utterances with text, compared without normalization; 3 utterances with an error are left out" in err
    assert "line 2: offset 7.0 s is past the end" in found[1]["error"] and "line 6: " in found[5]["error"]


def test_a_recording_without_the_chosen_channel_is_a_row_with_an_error(ctc_file, tmp_path, capsys):
    mono, stereo = write_good(tmp_path / "mono.wav"), tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([noise(0.5), noise(0.5)], 1), RATE)
    options = ["--channel", 2, "--output", tmp_path / "out.jsonl"]
    assert run(ctc_file, stereo, mono, *options) == 1
    bad, good = read(tmp_path / "out.jsonl")
    assert "has only 2 channels" in bad["error"] and good["pred_text"]
    assert run(ctc_file, stereo, mono, *options, "--force", "--strict") == 2
    assert "--channel 2: " in capsys.readouterr().err


def test_strict_checks_all_headers_before_the_model_is_loaded(folder, ctc_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    assert run(ctc_file, folder, "--output", tmp_path / "out.jsonl", "--strict") == 2
    assert "of 11 audio files cannot be used\n" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_stops_at_a_file_that_breaks_in_its_middle_and_names_it(workers, ctc_file, tmp_path, capsys):
    names = [write_good(tmp_path / f"{seed}.wav", 3.0, seed) for seed in range(3)]
    broken = write_broken_in_the_middle(tmp_path / "broken.flac")
    options = ["--strict", "--batch-size", 1, "--num-workers", workers, "--output", tmp_path / "out.jsonl"]
    assert run(ctc_file, *names, broken, *options) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "broken.flac" in last and "3 of 4 utterances are done" in last and "--resume" in last
    assert not (tmp_path / "out.jsonl").exists()


def test_if_no_file_can_be_used_the_command_ends_before_the_model_is_loaded(ctc_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    bad = [write_empty(tmp_path / "a.wav"), write_no_header(tmp_path / "b.wav")]
    assert run(ctc_file, *bad, "--output", tmp_path / "out.jsonl") == 2
    err = capsys.readouterr().err
    assert "2 of 2 utterances cannot be used" in err and "a.wav" in err and "b.wav" in err
    assert not list(tmp_path.glob("out*"))


def test_files_that_are_all_bad_in_their_samples_are_all_rows(ctc_file, tmp_path):
    bad = [write_value(tmp_path / f"{seed}.wav", math.nan, seed=seed) for seed in range(5)]
    assert run(ctc_file, *bad, "--batch-size", 2, "--output", tmp_path / "out.jsonl") == 1
    assert ["error" in row for row in read(tmp_path / "out.jsonl")] == [True] * 5


def test_an_error_of_the_model_is_not_an_error_of_the_recording(model, ctc_file, tmp_path):
    def fail(*_):
        raise ValueError("of the model")

    hook = model.encoder.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ValueError, match="of the model"):
            run(ctc_file, write_good(tmp_path / "a.wav"))
    finally:
        hook.remove()


@pytest.mark.parametrize("batch_size", [1, 4, 16], ids=["alone", "with short rows", "with a long row"])
def test_a_row_of_any_length_is_transcribed(batch_size, ctc_file, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1.0), RATE)
    lengths = [1e-6, 1 / RATE, 0.005, 159 / RATE, 160 / RATE, 0.011, 0.03, 0.7]
    rows = [{"audio_filepath": "a.wav", "offset": 0.2, "duration": length} for length in lengths]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--batch-size", batch_size, "--output", tmp_path / "out.jsonl"]
    assert run(ctc_file, tmp_path / "rows.jsonl", *options) == 0
    found = [row["pred_text"] for row in read(tmp_path / "out.jsonl")]
    assert found[:4] == [""] * 4 and found[-1]  # a frame needs 160 samples
