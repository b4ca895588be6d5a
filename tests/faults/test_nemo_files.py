"""Tests that a damaged or hostile `.nemo` file is refused with one line that says what is wrong."""

from __future__ import annotations

import gzip
import os
import random
import resource
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import ASRModel

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.models import restore
from tests.samples import damaged_models
from tests.samples.asr_models import asr_model
from tests.samples.damaged_models import CONFIG, WEIGHTS, read, with_config, with_weights, write

INPUTS, MORE_INPUTS = 40, 300
CPU = torch.device("cpu")
CANARY = "canary-4711"
LIMITED = """
import resource, sys, torch
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.models import restore
torch.set_num_threads(1)
restore(sys.argv[1], torch.device("cpu"))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for path in sys.argv[2:]:
    try:
        restore(path, torch.device("cpu"))
    except UserError as error:
        print("refused:", error)
"""


@pytest.fixture(scope="module")
def files(ctc_file) -> dict[str, bytes]:
    return read(ctc_file)


@pytest.fixture(scope="module")
def bpe_files(tokenizer, tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("bpe") / "bpe.nemo"
    asr_model("ctc", "bpe", tokenizer=tokenizer).save_to(str(path))
    return read(path)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.nemo"


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file outside of the archive. It must not change. A module must not be imported: it would create a marker."""
    marker = tmp_path / "marker"
    (tmp_path / "evil_encoder.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    canary = tmp_path / "canary.txt"
    canary.write_text(CANARY)
    yield canary
    assert canary.read_text() == CANARY and not marker.exists()
    assert not Path("/tmp/x").exists()


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as error:
        restore(str(path), CPU)
    message = str(error.value)
    assert "\n" not in message and str(path) in message and len(message) < 1000 and CANARY not in message
    assert "abstract class" not in message
    return message


def test_a_truncated_archive_is_named_before_nemo_is_used(ctc_file, path, capsys):
    whole = ctc_file.read_bytes()
    for length in range(0, len(whole) - 20_000, len(whole) // 10):
        path.write_bytes(whole[:length])
        assert main(["info", str(path)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and (
            "truncated" in lines[0] or "not a NeMo archive" in lines[0] or "no model" in lines[0]
        )


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_member_is_named(name, files, path):
    write(path, {key: value for key, value in files.items() if key != name})
    assert f"contains no {name}" in complaint(path)


def test_a_member_that_leads_out_of_the_archive_is_refused(files, path, canary):
    for name in (f"../{canary.name}", str(canary), "a/../../x"):
        write(path, files | {name: b"overwritten"})
        assert "outside of the archive" in complaint(path)
    for kind in damaged_models.LINKS:
        write(path, {WEIGHTS: files[WEIGHTS]}, {CONFIG: (kind, str(canary))})
        assert "neither a file nor a folder" in complaint(path)
    with tarfile.open(path, "w") as archive:
        for content in (files[CONFIG], b"target: os.system"):
            (path.parent / "part").write_bytes(content)
            archive.add(path.parent / "part", CONFIG)
    assert "twice" in complaint(path)


def test_an_archive_that_expands_to_more_than_the_disk_is_refused(files, path):
    header = tarfile.TarInfo(CONFIG)
    header.size = 2**50
    path.write_bytes(header.tobuf() + bytes(2**16))
    assert "truncated" in complaint(path)
    header.size = 2**31
    path.write_bytes(gzip.compress(header.tobuf() + bytes(2**20)))
    assert "truncated" in complaint(path)
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**28
    path.write_bytes(gzip.compress(long.tobuf() + bytes(2**28), compresslevel=1))
    assert "truncated or damaged" in complaint(path)


def test_an_archive_with_gzip_is_restored(ctc_file, path):
    path.write_bytes(gzip.compress(ctc_file.read_bytes(), compresslevel=1))
    assert restore(str(path), CPU).encoder.d_model == 16


def config_complaint(files: dict[str, bytes], path: Path, **changes: Any) -> str:
    """Return the error for changes of the configuration. The name of a change is a path with ``__``."""

    def change(config: Any) -> None:
        for name, value in changes.items():
            *above, last = name.split("__")
            section = config
            for key in above:
                section = section[key]
            if value is ...:
                del section[last]
            else:
                section[last] = value

    write(path, with_config(files, change))
    return complaint(path)


def test_a_wrong_configuration_is_named(files, path, canary):
    def wrong(**changes: Any) -> str:
        return config_complaint(files, path, **changes)

    assert "n_heads=5 must divide d_model=16" in wrong(encoder__n_heads=5)
    assert "encoder.dropout is 'x'; expected a value of type float" in wrong(encoder__dropout="x")
    assert "'encoder'" in wrong(encoder=...)
    assert "does not have the class" in wrong(target="nemo.collections.asr.models.NoModel")
    assert "is not a class of NeMo or of this package" in wrong(target="evil_encoder.Model")
    assert "is not a model of NeMo" in wrong(target="nemo.collections.asr.modules.ConformerEncoder")
    assert "names no class" in wrong(target=...)
    assert "unsafe target 'subprocess.Popen'" in wrong(encoder={"_target_": "subprocess.Popen", "args": "touch marker"})
    assert "names the file" in wrong(decoding__greedy__ngram_lm_model=str(canary))
    assert "oc.env" in wrong(encoder__dropout="${oc.env:HOME}")
    for text in (b"a: [", b"\xff", b"- 1", b"", b"a: b\na: c"):
        write(path, files | {CONFIG: text})
        assert CONFIG in complaint(path)


def test_a_missing_tokenizer_and_a_tokenizer_outside_of_the_archive_are_named(bpe_files, path, canary):
    def wrong(**changes: Any) -> str:
        return config_complaint(bpe_files, path, **changes)

    (name,) = [name for name in bpe_files if name.endswith("_tokenizer.model")]
    write(path, {key: value for key, value in bpe_files.items() if key != name})
    assert f"nemo:{name}', which is not in the archive" in complaint(path)
    assert "the tokenizer is missing" in wrong(tokenizer__model_path=...)
    assert "not in the archive" in wrong(tokenizer__model_path=f"nemo:{canary}")
    assert "not in the archive" in wrong(tokenizer__model_path=f"nemo:../{canary.name}")
    assert "of this machine" in wrong(tokenizer__model_path=str(canary))
    write(path, bpe_files | {name: CANARY.encode()})
    assert "cannot be loaded" in complaint(path)


def test_wrong_weights_are_named(files, path):
    cut = files[WEIGHTS][: len(files[WEIGHTS]) // 2]
    write(path, files | {WEIGHTS: cut})
    assert f"{WEIGHTS} is damaged" in complaint(path)
    changed = bytearray(files[WEIGHTS])
    changed[len(changed) // 2] ^= 0xFF
    write(path, files | {WEIGHTS: bytes(changed)})
    assert "the checksum of" in complaint(path)
    for change, reason in (
        (lambda it: it.pop("decoder.decoder_layers.0.weight"), "Missing key(s)"),
        (lambda it: {name: tensor.int() for name, tensor in it.items()}, "has the dtype torch.int32"),
        (lambda it: list(it.values()), "not a table of tensors"),
        (lambda it: {**it, "decoder.decoder_layers.0.bias": torch.zeros(3)}, "size mismatch"),
    ):
        found = with_weights(
            files, lambda it, change=change: given if isinstance(given := change(it), (dict, list)) else None
        )
        write(path, found)
        assert reason in complaint(path)


@pytest.mark.slow
def test_sizes_that_do_not_fit_the_weights_are_refused_in_little_memory(files, ctc_file, tmp_path):
    changes = {
        "encoder__n_layers": 10**9,
        "encoder__d_model": 10**6,
        "encoder__ff_expansion_factor": 10**6,
        "preprocessor__n_fft": 10**9,
        "preprocessor__window_stride": "x" * 10**6,
    }
    paths = [tmp_path / f"{name}.nemo" for name in changes]
    for path, (name, value) in zip(paths, changes.items()):
        config_complaint(files, path, **{name: value})
    command = [sys.executable, "-c", LIMITED, str(ctc_file), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("refused:") == len(paths), done.stderr[-3000:]


def test_verbose_raises_the_error_of_the_named_class(files, path):
    write(path, with_config(files, lambda it: it["encoder"].update(n_heads=5)))
    with pytest.raises(Exception, match="n_heads=5") as error:
        restore(str(path), CPU, verbose=True)
    assert not isinstance(error.value, UserError)


def run_fuzzer(files: dict[str, bytes], folder: Path, canary: Path, inputs: int, seed: int) -> Counter[str]:
    """Restore damaged copies of a model. Return the number of each outcome."""
    drawn, outcomes, path = random.Random(seed), Counter[str](), folder / "fuzz.nemo"
    before = sorted(os.listdir("/tmp"))
    for _ in range(inputs):
        kind = damaged_models.damage(path, files, canary, drawn)
        start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            restore(str(path), CPU)
            outcomes["restored"] += 1
        except UserError as error:
            message = str(error)
            assert "\n" not in message and str(path) in message and len(message) < 1000, (kind, message)
            assert CANARY not in message and "abstract class" not in message, (kind, message)
            outcomes["refused"] += 1
        assert time.monotonic() - start < 10.0, kind
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**20, kind  # KiB
    left = set(os.listdir("/tmp")) - set(before)
    assert not any(name.startswith(".unfinished") for name in left)
    assert ASRModel._is_model_being_restored() is False
    return outcomes


@pytest.mark.parametrize("units", ["char", "bpe"])
def test_damaged_archives_are_restored_or_refused_in_one_line(units, files, bpe_files, tmp_path, canary):
    given = files if units == "char" else bpe_files
    outcomes = run_fuzzer(given, tmp_path, canary, INPUTS, seed=0)
    assert sum(outcomes.values()) == INPUTS and min(outcomes.values()) > INPUTS // 20, outcomes


@pytest.mark.slow
def test_many_damaged_archives_are_restored_or_refused_in_one_line(bpe_files, tmp_path, canary):
    """The archive has all files of a model with characters, and the files of a tokenizer."""
    outcomes = run_fuzzer(bpe_files, tmp_path, canary, MORE_INPUTS, seed=1)
    assert sum(outcomes.values()) == MORE_INPUTS and min(outcomes.values()) > MORE_INPUTS // 20, outcomes
