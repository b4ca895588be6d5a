"""Tests that an interrupted transcription loses no finished row, and that ``--resume`` continues with these rows."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.asr")
import fcntl

import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.bad_recordings import write_broken_in_the_middle, write_good, write_no_header

FILES = 12
BAD = (3, 7, 10)


@pytest.fixture(scope="module")
def model(ctc_file):
    return load_model(str(ctc_file), torch.device("cpu"))


@pytest.fixture
def at_batch(monkeypatch, model) -> Iterator[Callable[[int, Callable[[], object]], None]]:
    """Return a function that calls ``act`` at the start of batch number ``n``, counted from 1."""
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: model)
    hooks = []

    def plan(n: int, act: Callable[[], object]) -> None:
        batches: list[int] = []

        def count(*_) -> None:
            batches.append(1)
            if len(batches) == n:
                act()

        hooks.append(model.encoder.register_forward_pre_hook(count))

    yield plan
    for hook in hooks:
        hook.remove()


@pytest.fixture(autouse=True)
def handled_ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal. A program that a shell has started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def manifest(tmp_path) -> Path:
    rows = []
    for number in range(FILES):
        name = tmp_path / f"{number}.wav"
        if number in BAD:
            (write_no_header if number % 2 else write_broken_in_the_middle)(name)
        else:
            write_good(name, 0.3 + 0.05 * (number * 5 % FILES), number)
        rows.append({"audio_filepath": name.name, "text": "one two", "index": -number})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(ctc_file, manifest, tmp_path, at_batch) -> Callable[..., int]:
    def call(*more: object, output: str = "out.jsonl") -> int:
        options = ["--device", "cpu", "--batch-size", 2, "--output", tmp_path / output]
        return main(["transcribe", str(ctc_file), str(manifest), *map(str, [*options, *more])])

    return call


@pytest.fixture
def whole(run, tmp_path) -> str:
    """The file OUT of a run without an interruption."""
    assert run(output="whole.jsonl") == 1
    return (tmp_path / "whole.jsonl").read_text()


def interrupt(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize(("batch", "number", "status"), [(1, "SIGINT", 130), (3, "SIGTERM", 143), (5, "SIGINT", 130)])
def test_a_resumed_run_has_the_rows_of_a_run_without_an_interruption(
    batch, number, status, run, whole, at_batch, tmp_path, capsys
):
    at_batch(batch, lambda: interrupt(getattr(signal, number)))
    assert run() == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert "of 12 utterances are done" in last and "--resume" in last
    assert not (tmp_path / "out.jsonl").exists()
    before = len((tmp_path / "out.jsonl.partial").read_text().splitlines()) - 1
    good_before = before - sum(json.loads(line).get("whole") is False for line in partial_lines(tmp_path))
    assert run("--resume") == 1
    assert f"--resume: {good_before} of 12 utterances are done" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == whole
    assert not (tmp_path / "out.jsonl.partial").exists()


def partial_lines(folder: Path) -> list[str]:
    return (folder / "out.jsonl.partial").read_text().splitlines()


def test_a_run_continues_after_any_cut_of_the_partial_file(run, whole, at_batch, tmp_path):
    at_batch(4, interrupt)
    assert run() == 130
    partial, out = tmp_path / "out.jsonl.partial", tmp_path / "out.jsonl"
    data = partial.read_bytes()
    first = data.index(b"\n") + 1
    lines = [number for number, byte in enumerate(data) if byte == 10]
    cuts = [0, 1, first - 1, first, first + 1, lines[2] - 1, lines[2], lines[2] + 1, len(data) - 1]
    for cut in cuts:
        partial.write_bytes(data[:cut])
        assert run("--resume") == 1
        assert out.read_text() == whole
        out.unlink()
    partial.write_bytes(data[: lines[2] + 1] + bytes(100) + b"\n" + data[lines[2] + 1 :])  # after a power failure
    assert run("--resume") == 1
    assert out.read_text() == whole


def test_a_recording_that_has_been_repaired_or_replaced_is_transcribed_again(run, whole, at_batch, tmp_path):
    at_batch(5, interrupt)
    assert run() == 130
    write_good(tmp_path / "3.wav", 0.5, seed=3)  # was an error
    longest = json.loads(next(line for line in partial_lines(tmp_path) if '"whole": true' in line))["index"]
    write_good(tmp_path / f"{longest}.wav", 0.75, seed=99)  # was done
    assert run("--resume") == 1
    assert run("--force", output="again.jsonl") == 1
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "again.jsonl").read_text() != whole


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (["--timestamps"], "--timestamps was false and is now true"),
        (["--att-context-size", "[8, 8]"], r"--att-context-size was null and is now \[8, 8\]"),
        ("model", r"MODEL was \".*bytes, changed .*\" and is now"),
        ("row", "the rows of the inputs have changed"),
        ("fewer", "the inputs had 12 utterances and now have 11"),
        ("folder", "inputs was"),
    ],
)
def test_a_run_with_other_settings_or_inputs_is_refused_with_the_difference(
    change, difference, run, at_batch, manifest, ctc_file, tmp_path, capsys
):
    import re

    at_batch(3, interrupt)
    assert run() == 130
    before = (tmp_path / "out.jsonl.partial").read_bytes()
    more, model, inputs = list(change) if isinstance(change, list) else [], ctc_file, [manifest]
    lines = manifest.read_text().splitlines(keepends=True)
    if change == "model":
        model = tmp_path / "other.nemo"
        shutil.copy(ctc_file, model)
    elif change == "row":
        manifest.write_text("".join(lines).replace("one two", "one three", 1))
    elif change == "fewer":
        manifest.write_text("".join(lines[1:]))
    elif change == "folder":
        inputs = [tmp_path]
        for name in ("rows.jsonl", "other.nemo"):
            (tmp_path / name).unlink(missing_ok=True)
    capsys.readouterr()
    options = ["--output", tmp_path / "out.jsonl", "--resume", *more]
    assert main(["transcribe", *map(str, [model, *inputs, *options])]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert re.search(difference, line) and "--force" in line
    assert (tmp_path / "out.jsonl.partial").read_bytes() == before


def test_the_batch_size_may_change(run, whole, at_batch, tmp_path):
    at_batch(3, interrupt)
    assert run() == 130
    assert run("--resume", "--batch-size", 5, "--num-workers", 1) == 1
    assert (tmp_path / "out.jsonl").read_text() == whole


def test_resume_begins_if_there_is_nothing_to_continue_and_ends_if_there_is_nothing_to_do(
    run, whole, tmp_path, monkeypatch, capsys
):
    assert run("--resume") == 1
    assert (tmp_path / "out.jsonl").read_text() == whole
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    capsys.readouterr()
    assert run("--resume") == 1  # rows have errors
    assert "complete: 12 rows, 3 of them with an error; there is nothing to do" in capsys.readouterr().err
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert run("--resume") == 2
    assert "rows are not the rows of the inputs" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"


def test_a_finished_output_without_errors_has_the_status_0(ctc_file, tmp_path, at_batch):
    names = [str(write_good(tmp_path / f"{seed}.wav", seed=seed)) for seed in range(2)]
    command = ["transcribe", str(ctc_file), *names, "--output", str(tmp_path / "out.jsonl"), "--resume"]
    assert main(command) == main(command) == 0


def test_a_kill_between_the_last_two_steps_leaves_a_complete_output(run, whole, at_batch, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("nemo_squeezeformer.commands.rows.partial_rows.PartialRows.remove", lambda _: interrupt())
        assert run() == 130
    assert (tmp_path / "out.jsonl").read_text() == whole and (tmp_path / "out.jsonl.partial").exists()
    assert run("--resume") == 1
    assert (tmp_path / "out.jsonl").read_text() == whole and not (tmp_path / "out.jsonl.partial").exists()


def test_a_run_that_began_with_force_continues_and_replaces_the_old_output(run, whole, at_batch, tmp_path):
    (tmp_path / "out.jsonl").write_text("old\n")
    at_batch(3, interrupt)
    assert run("--force") == 130
    assert (tmp_path / "out.jsonl").read_text() == "old\n"
    assert run("--resume") == 1
    assert (tmp_path / "out.jsonl").read_text() == whole


def test_a_foreign_partial_file_is_not_continued(run, tmp_path, capsys):
    for content in ("mine\n", "mine", '{"a": 1}\n', "[1]\n"):
        (tmp_path / "out.jsonl.partial").write_text(content)
        assert run("--resume") == 2
        assert "does not begin as the rows of an unfinished run do" in capsys.readouterr().err
        assert (tmp_path / "out.jsonl.partial").read_text() == content


@pytest.mark.parametrize("option", [None, "--resume", "--force"])
def test_of_two_processes_with_one_output_the_second_is_refused(
    option, run, whole, at_batch, tmp_path, monkeypatch, capsys
):
    at_batch(3, interrupt)
    assert run() == 130
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    partial = tmp_path / "out.jsonl.partial"
    before = partial.read_bytes()
    with partial.open("r+b") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        capsys.readouterr()
        assert run(*[option] if option else []) == 2
        assert "another process writes" in capsys.readouterr().err
    assert partial.read_bytes() == before and not (tmp_path / "out.jsonl").exists()


def test_a_full_disk_ends_in_one_line_and_keeps_the_finished_rows(run, whole, tmp_path, monkeypatch, capsys):
    written: list[int] = []
    write = os.write

    def write_until_full(file: int, data: bytes) -> int:
        if sum(written) > 2200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(write(file, data[:100]))
        return written[-1]

    with monkeypatch.context() as patched:
        patched.setattr("nemo_squeezeformer.commands.rows.partial_rows.os.write", write_until_full)
        assert run() == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and "No space left" in errors[0] and "--resume" in errors[0]
    assert run("--resume") == 1
    assert (tmp_path / "out.jsonl").read_text() == whole


def test_a_full_disk_for_the_last_step_keeps_all_rows(run, whole, tmp_path, monkeypatch, capsys):
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("nemo_squeezeformer.commands.rows.partial_rows.written_whole", full)
        assert run() == 2
    assert "out.jsonl cannot be written (No space left on device); 12 of 12" in capsys.readouterr().err.splitlines()[-1]
    assert run("--resume") == 1
    assert (tmp_path / "out.jsonl").read_text() == whole


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder in which nobody can create a file")
@pytest.mark.parametrize("command", ["transcribe", "stream"])
def test_a_folder_that_cannot_be_written_is_found_before_the_model_is_loaded(
    command, ctc_file, manifest, monkeypatch, capsys
):
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    assert main([command, str(ctc_file), str(manifest), "--output", "/sys/kernel/out.jsonl"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "/sys/kernel" in line and "choose another" in line


def test_resume_needs_an_output(ctc_file, manifest, capsys):
    assert main(["transcribe", str(ctc_file), str(manifest), "--resume"]) == 2
    assert "pass --output OUT" in capsys.readouterr().err


def start(model: Path, inputs: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    options = ["--output", str(out), "--device", "cpu", "--batch-size", "4", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "nemo_squeezeformer", "transcribe", str(model), str(inputs), *options],
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_2000_files_have_a_row_each_with_and_without_a_kill(ctc_file, tmp_path):
    folder, out = tmp_path / "recordings", tmp_path / "out.jsonl"
    folder.mkdir()
    writers = [write_no_header, write_broken_in_the_middle]
    for number in range(2000):
        name = folder / f"{number:04d}.wav"
        if number % 20 == 7:
            writers[number // 20 % 2](name)
        else:
            write_good(name, 0.2 + 0.01 * (number * 7 % 20), number)
    killed = start(ctc_file, folder, out, "--num-workers", "2")
    partial = tmp_path / "out.jsonl.partial"
    deadline = time.monotonic() + 120
    while not partial.exists() or partial.read_bytes().count(b"\n") < 700:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not out.exists() and 700 <= partial.read_bytes().count(b"\n") < 2000
    assert start(ctc_file, folder, out, "--resume").wait(300) == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["audio_filepath"]).name for row in rows] == [f"{number:04d}.wav" for number in range(2000)]
    assert [number for number, row in enumerate(rows) if "error" in row] == list(range(7, 2000, 20))
    assert all(("pred_text" in row) != ("error" in row) for row in rows)
    again = ["--output", str(tmp_path / "again.jsonl"), "--device", "cpu", "--batch-size", "4"]
    assert main(["transcribe", str(ctc_file), str(folder), *again]) == 1
    assert (tmp_path / "again.jsonl").read_text() == out.read_text()
