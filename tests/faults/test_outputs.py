"""Tests that a full disk, a read-only folder or a kill leaves the old output, and no half output under a final name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import outputs
from nemo_squeezeformer.files.outputs import all_written_whole, require_folder, written_whole
from tests.samples.asr_models import write_tokenizer
from tests.samples.paths import ROOT

LIMIT = 20_000  # bytes of the largest file that a process may write; every output is larger
# A process whose files cannot grow: a write then fails in the same way as on a full disk.
SMALL_FILES = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from nemo_squeezeformer.__main__ import main
import nemo.collections.asr, nemo_squeezeformer.transcription.models, onnx, safetensors, tempfile
limit = int(sys.argv[1])
restore = nemo_squeezeformer.transcription.models.restore
def limited(*args, **kwargs):
    model = restore(*args, **kwargs)  # NeMo extracts the model to temporary files before the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    return model
nemo_squeezeformer.transcription.models.restore = limited
status = []
for line in sys.stdin.read().splitlines():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if line.startswith(("import", "tokenizer")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    status.append(main(line.split("\\t")))
print("statuses", *status)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from nemo_squeezeformer.files import outputs
folder, step = Path(sys.argv[1]), int(sys.argv[2])
counted = [0]
def counting(function):
    def call(*args, **kwargs):
        if counted[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        counted[0] += 1
        return function(*args, **kwargs)
    return call
os.rename, os.replace, os.mkdir = counting(os.rename), counting(os.replace), counting(os.mkdir)
with outputs.all_written_whole(folder) as new:
    for name in sys.argv[3:]:
        (new / name).write_text("new")
print("finished")
"""


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    """A small file system with an old output."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a file system can be mounted only by root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def read_only(full_disk) -> Iterator[Path]:
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    yield full_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_ends_in_one_line_and_the_old_file_is_unchanged(full_disk):
    save_file = pytest.importorskip("safetensors.torch").save_file
    (full_disk / "out").write_text("old")
    writers = {
        "python": lambda path: path.write_bytes(bytes(2**20)),
        "torch": lambda path: torch.save(torch.zeros(2**20), path),
        "safetensors": lambda path: save_file({"a": torch.zeros(2**20)}, path),
    }
    for write in writers.values():
        with pytest.raises(UserError, match="the disk is full") as error, written_whole(full_disk / "out") as new:
            write(new)
        assert "\n" not in str(error.value) and str(full_disk) in str(error.value)
        assert names(full_disk) == ["out"] and (full_disk / "out").read_text() == "old"
    (full_disk / "filled").write_bytes(bytes(48_000))
    with pytest.raises(UserError, match="needs about 60,000 bytes"):
        require_folder(full_disk / "out", "--output out", needed=60_000)


def test_a_read_only_folder_is_found_before_the_work(read_only, ctc_file, noises, tmp_path, capsys):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "weights.h5").write_bytes(b"not read")
    for arguments in (
        ["export", str(ctc_file), "--output", str(read_only / "out.onnx")],
        ["export", str(ctc_file), "--format", "safetensors", "--output", str(read_only / "out")],
        ["redundancy", str(ctc_file), "--data", noises[0], "--output", str(read_only / "out.png")],
        ["import", str(tmp_path / "weights.h5"), "--tokenizer", str(tokenizer / "tokenizer.model")]
        + ["--output", str(read_only / "out.nemo")],
    ):
        start = time.monotonic()
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is read-only" in line and str(read_only) in line
        assert time.monotonic() - start < 2.0
    with pytest.raises(UserError, match="nothing can be written"), all_written_whole(read_only):
        pass


@pytest.mark.parametrize("inside", [["one"], ["one", "two", "zwei"]])
def test_a_kill_at_any_step_leaves_old_or_new_files_and_never_both(inside, tmp_path):
    """The process is killed before each operation on files. What is left does not disturb the next run."""
    for name in inside:
        (tmp_path / name).write_text("old")
    finished = False
    for step in range(40):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(step), *inside]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        finished = "finished" in done.stdout
        assert finished or done.returncode == -signal.SIGKILL, done.stderr
        found = {name: (tmp_path / name).read_text() for name in inside if (tmp_path / name).exists()}
        assert len(set(found.values())) <= 1 and (len(inside) > 1 or found)
        for name in inside:
            (tmp_path / name).write_text("old")
        if finished:
            break
    assert finished and step >= 3 + len(inside)
    left = [name for name in names(tmp_path) if name not in inside]
    assert left and all(name.startswith(".unfinished-") for name in left)
    with all_written_whole(tmp_path) as new:
        for name in inside:
            (new / name).write_text("new")
    assert all((tmp_path / name).read_text() == "new" for name in inside)


def test_files_that_belong_together_are_all_moved_back_after_an_error(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).write_text("old")
    rename, calls = os.rename, []

    def failing(source: str, target: str) -> None:
        calls.append(source)
        if len(calls) == 4:
            raise OSError("no such luck")
        rename(source, target)

    with pytest.raises(OSError, match="luck"), all_written_whole(tmp_path) as new:
        for name in ("one", "two"):
            (new / name).write_text("new")
        monkeypatch.setattr(outputs.os, "rename", failing)
    assert names(tmp_path) == ["one", "two"]
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"old"}


def test_an_error_that_is_not_about_space_is_not_changed(tmp_path):
    for error in (OSError(2, "missing"), RuntimeError("other"), KeyboardInterrupt()):
        with pytest.raises(type(error)), written_whole(tmp_path / "out"):
            raise error
    assert names(tmp_path) == []


@pytest.mark.slow
def test_every_command_that_writes_a_model_survives_a_full_disk(ctc_file, tmp_path):
    """The files of the process are limited. The old outputs stay, and every command ends with one line and status 2."""
    h5py = pytest.importorskip("h5py")
    assert h5py
    from tests.samples import original_weights

    tokenizer = write_tokenizer(tmp_path / "tokenizer") / "tokenizer.model"
    small = {"d_model": 16, "n_layers": 3, "n_heads": 2, "conv_kernel_size": 7, "vocabulary_size": 23}
    original_weights.write(tmp_path / "weights.h5", **small)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.onnx", "b.nemo"):
        (out / name).write_text("old")
    lines = [
        ["export", str(ctc_file), "--offline", "--force", "--output", str(out / "a.onnx")],
        ["export", str(ctc_file), "--format", "safetensors", "--output", str(out / "c")],
        ["import", str(tmp_path / "weights.h5"), "--tokenizer", str(tokenizer), "--force"]
        + ["--output", str(out / "b.nemo")],
    ]
    given = "\n".join("\t".join(line) for line in lines)
    command = [sys.executable, "-c", SMALL_FILES, str(LIMIT)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=400, cwd=ROOT)
    assert "statuses 2 2 2" in done.stdout, done.stderr[-3000:]
    errors = [line for line in done.stderr.splitlines() if "nemo-squeezeformer: error:" in line]
    assert len(errors) == len(lines) and all("the disk is full" in line for line in errors), errors
    assert "Traceback" not in done.stderr
    assert names(out) == ["a.onnx", "b.nemo"] and {(out / name).read_text() for name in names(out)} == {"old"}
