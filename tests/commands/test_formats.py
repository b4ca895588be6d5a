"""``transcribe --format``: text, subtitles and CTM have the words and times of the JSON lines."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nemo.collections.asr")

import soundfile
import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands.rows.recording_names import by_name
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.asr_models import spelling_model
from tests.samples.bad_recordings import write_broken_in_the_middle
from tests.samples.speech import RATE, noise

srt = pytest.importorskip("srt")
webvtt = pytest.importorskip("webvtt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with recordings in two subfolders. Their names without the folder or without the extension are equal."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, name in enumerate(["a/one.wav", "b/one.wav", "b/two.wav", "b/two.flac"]):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, noise(3.0 + 2 * number, number), RATE)
    return folder


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "hybrid.nemo"
    spelling_model("hybrid", [str(folder / "a/one.wav")]).save_to(str(path))
    return path


@pytest.fixture(scope="module")
def load() -> Callable[..., Any]:
    """Return a function that loads a model once for all tests."""
    return cache(lambda name, *_: load_model(name, torch.device("cpu")))


@pytest.fixture
def run(model, load, monkeypatch) -> Callable[..., int]:
    """Return a function that transcribes with the loaded model."""

    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", load)

    def call(*arguments: object) -> int:
        return main(["transcribe", str(model), *map(str, arguments), "--device", "cpu", "--cut", "none"])

    return call


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def subtitles(path: Path) -> list[tuple[float, float, str]]:
    """Return start, end and text of each cue, read by another program."""
    if path.suffix == ".srt":
        return [(s.start.total_seconds(), s.end.total_seconds(), s.content) for s in srt.parse(path.read_text())]

    def seconds(time: Any) -> float:
        return 3600 * time.hours + 60 * time.minutes + time.seconds + time.milliseconds / 1000

    return [(seconds(c.start_time), seconds(c.end_time), c.text) for c in webvtt.read(str(path))]


def check(cues: list[tuple[float, float, str]], words: list[dict[str, Any]], offset: float = 0.0) -> None:
    """Check that the cues have the words at their times, that times never go back, and that lines are short."""
    times = [time for start, end, _ in cues for time in (start, end)]
    assert times == sorted(times) and all(0 < end - start < 7.01 for start, end, _ in cues)
    assert all(len(line) <= 42 for *_, text in cues for line in text.split("\n"))
    spoken = [(start, end, word) for start, end, text in cues for word in text.split()]
    assert "".join(word for *_, word in spoken) == "".join(word["word"] for word in words)
    assert spoken[0][0] == pytest.approx(words[0]["start"] + offset, abs=0.002)
    assert spoken[-1][1] >= words[-1]["end"] + offset - 0.002


@pytest.mark.parametrize("decoder", ["ctc", "rnnt"])
@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_have_the_words_and_times_of_the_json_lines(run, folder, tmp_path, decoder, form):
    name, out, rows = folder / "b/two.flac", tmp_path / f"out.{form}", tmp_path / "rows.jsonl"
    assert run(name, "--output", out, "--decoder", decoder) == 0
    assert run(name, "--output", rows, "--timestamps", "--decoder", decoder) == 0
    [row] = rows_of(rows)
    assert len(row["pred_text"].split()) > 5
    check(subtitles(out), row["timestamps"]["word"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, rows.name])


def test_several_recordings_have_a_file_each_in_a_folder(run, folder, tmp_path):
    inputs, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, inputs)
    write_broken_in_the_middle(inputs / "bad.wav")
    assert run(inputs, "--format", "vtt", "--output", out) == 1
    assert sorted(contents(out)) == ["a/one.vtt", "b/one.vtt", "b/two.flac.vtt", "b/two.wav.vtt"]
    assert all(subtitles(path) for path in out.rglob("*.vtt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_rows_of_a_recording_are_on_the_timeline_of_the_recording(run, folder, tmp_path):
    segments = [(5.0, 4.0), (0.0, 2.5), (2.5, 2.5)]  # not in the order of the times
    manifest, ctm, rows = tmp_path / "rows.json", tmp_path / "out.ctm", tmp_path / "out.jsonl"
    name = str(folder / "b/two.flac")
    lines = [{"audio_filepath": name, "offset": start, "duration": length} for start, length in segments]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(manifest, "--output", ctm) == run(manifest, "--output", rows, "--timestamps") == 0
    columns = [line.split() for line in ctm.read_text().splitlines()]
    expected = [
        ["two", "1", f"{start + word['start']:.3f}", word["word"]]
        for (start, _), row in sorted(zip(segments, rows_of(rows)), key=lambda pair: pair[0])
        for word in row["timestamps"]["word"]
    ]
    assert [[*each[:3], each[4]] for each in columns] == expected
    starts = [float(each[2]) for each in columns]
    assert starts == sorted(starts) and starts[-1] > 5.0
    assert run(manifest, "--output", tmp_path / "out.srt") == 0
    check(subtitles(tmp_path / "out.srt"), [{"word": e[4], "start": float(e[2]), "end": 0.0} for e in columns])


def test_text_in_a_file_is_the_text_on_stdout(run, folder, tmp_path, capfd):
    assert run(folder, "--format", "txt", "--output", tmp_path / "out.txt") == 0
    assert "\t" not in capfd.readouterr().out
    assert run(folder) == 0
    assert capfd.readouterr().out == (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize("form", ["jsonl", "ctm", "srt", "vtt"])
def test_one_recording_can_be_written_to_stdout_in_each_format(run, folder, tmp_path, capfd, form):
    name = folder / "a/one.wav"
    out = tmp_path / f"out.{form}"
    assert run(name, "--format", form, "--output", out) == 0
    capfd.readouterr()
    assert run(name, "--format", form) == 0
    assert capfd.readouterr().out.strip() == out.read_text().strip() != ""


def test_recordings_with_equal_names_have_different_names_on_stdout(run, folder, tmp_path, capfd):
    assert run(folder, "--output", tmp_path / "out.ctm") == 0
    capfd.readouterr()
    assert run(folder, "--format", "ctm") == 0
    shown = capfd.readouterr().out.splitlines()
    assert sorted(shown) == sorted((tmp_path / "out.ctm").read_text().splitlines())
    assert {line.split()[0] for line in shown} == {"a/one", "b/one", "b/two.wav", "b/two.flac"}


def test_every_recording_has_a_name_of_its_own(tmp_path):
    names = ["talk.wav", "talk.mp3", "talk.wav.mp3"]
    found = by_name([Utterance({}, str(tmp_path / name), 0.0, 1.0, 1) for name in names])
    assert found == {"talk.wav": [0], "talk.mp3": [1], "talk.wav.mp3": [2]}


def test_an_interrupted_run_into_an_empty_folder_continues(run, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    options = ["--format", "srt", "--output", out]
    with monkeypatch.context() as patched:
        patched.setattr("nemo_squeezeformer.commands.rows.formats.write", stop)
        assert run(folder, *options) == 130
    assert run(folder, *options, "--resume") == 0
    assert len(contents(out)) == 4


def test_outputs_that_do_not_fit_are_refused_before_the_model_is_loaded(run, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("dear")
    (tmp_path / "made").mkdir()
    (tmp_path / "made/old.srt").write_text("")
    (tmp_path / "file").write_text("dear")
    srt_output = ["--format", "srt", "--output"]
    for arguments, expected in [
        (["--output", tmp_path / "out.srt"], "out.srt is for the subtitles of one recording, but the inputs have 4"),
        (["--output", tmp_path / "OUT.SRT"], "OUT.SRT is for the subtitles of one recording, but the inputs have 4"),
        (["--format", "vtt"], "--format vtt on stdout is for the subtitles of one recording"),
        ([*srt_output, tmp_path / "mine", "--force"], "other files than subtitles, for example .*notes.txt"),
        ([*srt_output, tmp_path / "made"], "made exists; .*--force"),
        ([*srt_output, tmp_path / "file", "--force"], "file is a file, but the output is a folder"),
        ([*srt_output, tmp_path / "gone/out"], "there is no folder"),
        ([*srt_output, "."], "--output . is a folder; name a file or a new folder"),
        (["--format", "txt", "--timestamps"], "--timestamps: --format txt has no times"),
    ]:
        assert run(folder, *arguments) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert re.search(expected, line), line
    assert (tmp_path / "mine/notes.txt").read_text() == "dear" == (tmp_path / "file").read_text()


def test_force_replaces_the_subtitles_of_a_folder(run, folder, tmp_path):
    out = tmp_path / "out"
    assert run(folder, "--format", "srt", "--output", out) == 0
    (out / "older.vtt").write_text("")
    assert run(folder / "a", folder / "b/one.wav", "--format", "srt", "--output", out, "--force") == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == ["a/one.srt", "b/one.srt"]


def test_an_interrupted_run_continues_and_a_finished_run_has_nothing_to_do(run, folder, tmp_path, monkeypatch, capsys):
    options = ["--format", "srt", "--output", tmp_path / "out", "--batch-size", 1]
    assert run(folder, "--format", "srt", "--output", tmp_path / "whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr("nemo_squeezeformer.commands.rows.formats.write", stop)
        assert run(folder, *options) == 130
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").exists()
    assert run(folder, *options, "--resume") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    capsys.readouterr()
    assert run(folder, *options, "--resume") == 0
    assert "nothing to do" in capsys.readouterr().err and not (tmp_path / "out.partial").exists()


def test_a_kill_after_the_last_step_is_noticed_and_other_files_are_never_replaced(
    run, folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out.ctm"
    with monkeypatch.context() as patched:
        patched.setattr("nemo_squeezeformer.commands.rows.partial_rows.PartialRows.remove", stop)
        assert run(folder, "--output", out) == 130
    before = out.read_text()
    partial = tmp_path / "out.ctm.partial"
    kept = partial.read_bytes()
    out.write_text("mine\n")
    assert run(folder, "--output", out, "--resume") == 2
    assert "not the output of this run" in capsys.readouterr().err and out.read_text() == "mine\n"
    assert partial.read_bytes() == kept
    out.write_text(before)
    assert run(folder, "--output", out, "--resume") == 0
    assert not partial.exists() and out.read_text() == before


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
