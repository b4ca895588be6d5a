"""Faults of the console: a closed pipe, a full disk behind stdout, and text outside of the encoding of the console."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import consoles, program

ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
CP1252 = {"PYTHONIOENCODING": "cp1252"}
RECIPE = "squeezeformer_ctc_char"


def started(*arguments: str, stdout: int, **changes: str) -> subprocess.Popen:
    """Start a command whose output is not read. Its errors are read."""
    command = [sys.executable, "-m", "nemo_squeezeformer", *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"} | changes
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, encoding="latin-1", env=environment)


@pytest.mark.parametrize("arguments", [["train", "--list"]], ids=" ".join)
def test_a_closed_pipe_ends_a_command_without_a_message(arguments):
    read, write = os.pipe()
    os.close(read)
    process = started(*arguments, stdout=write)
    os.close(write)
    assert (process.communicate()[1], process.returncode) == ("", consoles.READER_GONE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["train", RECIPE, "--print"], ["info", RECIPE], ["info", RECIPE, "--json"], ["--version"], ["stream", "--help"]],
    ids=" ".join,
)
def test_a_closed_pipe_ends_every_command_without_a_message(arguments):
    test_a_closed_pipe_ends_a_command_without_a_message(arguments)


def test_a_reader_that_stops_in_the_middle_ends_a_command_without_a_message(tmp_path):
    (tmp_path / "long.py").write_text("for number in range(100_000): print(number)")
    process = started("run", str(tmp_path / "long.py"), stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == consoles.READER_GONE


def test_a_broken_pipe_of_another_process_is_not_taken_for_a_closed_stdout():
    def command() -> int:
        raise BrokenPipeError("a worker has ended")

    with pytest.raises(BrokenPipeError, match="a worker"):
        program.run("nemo-squeezeformer", command)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout_is_named_in_one_line():
    with open("/dev/full", "w") as full:
        process = started("train", "--list", stdout=full.fileno())
        errors = process.communicate()[1]
    assert process.returncode == 2
    reason = "an output cannot be written: No space left on device; free space, or choose another place"
    assert errors == f"nemo-squeezeformer: error: {reason}\n"


@pytest.mark.parametrize("changes", [ASCII, CP1252], ids=["ascii", "cp1252"])
def test_text_outside_of_the_encoding_of_the_console_is_written_as_an_escape(tmp_path, changes):
    (tmp_path / "print.py").write_text("print('\\u0142\\u00f3d\\u017a \\udce9')\n")
    process = started("run", str(tmp_path / "print.py"), stdout=subprocess.PIPE, **changes)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("\\u0142") and output.endswith("d\\u017a \\udce9\n")


@pytest.mark.parametrize("changes", [ASCII, CP1252], ids=["ascii", "cp1252"])
def test_an_error_outside_of_the_encoding_of_the_console_is_one_line(changes):
    process = started("train", "\u0142\u00f3d\u017a.yaml", stdout=subprocess.PIPE, **changes)
    errors = process.communicate()[1]
    assert process.returncode == 2 and errors.count("\n") == 1 and errors.startswith("nemo-squeezeformer: error: ")


def test_a_command_without_stdout_does_its_work(tmp_path):
    manifest = tmp_path / "train.txt"
    manifest.write_text("one two three four\n" * 20)
    words = [sys.executable, "-m", "nemo_squeezeformer", "tokenizer", str(manifest), "--vocab-size", "12"]
    shell = " ".join([*words, "--output", str(tmp_path / "tokenizer"), ">&-"])
    assert subprocess.run(shell, shell=True, capture_output=True, text=True).returncode == 0
    assert (tmp_path / "tokenizer" / "vocab.txt").is_file()


def test_a_stream_without_a_file_is_accepted(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert program.run("nemo-squeezeformer", lambda: print("\u0142") or 0) == 0
    assert sys.stdout.getvalue() == "\u0142\n"
    assert not consoles.is_reader_gone(sys.stdout)


def test_an_error_of_the_system_names_the_file_and_the_remedy(tmp_path, capsys):
    def command() -> int:
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    assert program.run("nemo-squeezeformer", command) == 2
    line = f"nemo-squeezeformer: error: {tmp_path}/out: No space left on device; free space, or choose another place\n"
    assert capsys.readouterr().err == line


def test_the_error_of_an_unwritable_output_replaces_no_error_of_the_user(capsys):
    def command() -> int:
        raise UserError("there is no file")

    assert program.run("nemo-squeezeformer", command) == 2
    assert capsys.readouterr().err == "nemo-squeezeformer: error: there is no file\n"
