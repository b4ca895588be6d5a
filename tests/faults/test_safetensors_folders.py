"""Tests that `plain.load` refuses damaged and hostile folders with one line, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_squeezeformer import plain
from nemo_squeezeformer.errors import UserError
from tests.samples.asr_models import asr_model

INPUTS, MORE_INPUTS = 150, 1500
CANARY = "canary-4711"  # the content of a file outside of the folder
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2, 3, 1.5, 1e308, 10**6, 10**9, 10**18, -(10**18), 2**64, "", "x", "auto",
    "/etc/passwd", "../x", [], [[]], [1], [-1, -1], [[16, 3], [-1, -1]], [10**9, 10**9], {}, {"a": 1}, "x" * 10_000,
]  # fmt: skip
LIMITED = """
import resource, sys, torch
from nemo_squeezeformer import plain
from nemo_squeezeformer.errors import UserError
torch.set_num_threads(1)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
for folder in sys.argv[1:]:
    try:
        plain.load(folder)
    except UserError as error:
        print("refused:", error)
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "good"
    plain.save(asr_model(), folder)
    return folder


@pytest.fixture
def broken(good, tmp_path) -> Path:
    return shutil.copytree(good, tmp_path / "broken")


def changed_config(folder: Path, change: Callable[[Any], Any]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def complaint(folder: Path) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        plain.load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value) and len(str(error.value)) < 1000
    assert time.monotonic() - start < 5.0
    return str(error.value)


def test_a_size_that_does_not_fit_the_weights_is_refused_before_memory_is_allocated(good, tmp_path):
    reasons = {
        "n_layers": (10**9, "n_layers=1000000000, but the weights have only"),
        "d_model": (2**16, "size mismatch for"),
        "ff_expansion_factor": (2**10, "size mismatch for"),
        "feat_in": (2**16, "size mismatch for"),
        "subsampling_conv_channels": (2**16, "size mismatch for"),
    }
    folders = [shutil.copytree(good, tmp_path / setting) for setting in reasons]
    for folder, (setting, (value, reason)) in zip(folders, reasons.items()):
        changed_config(folder, lambda it, change={setting: value}: it["encoder"].update(change))
        assert reason in complaint(folder)
    command = [sys.executable, "-c", LIMITED, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.count("refused:") == len(folders), done.stderr[-2000:]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_a_link_a_pipe_or_a_folder_is_refused_without_reading_it(name, broken, tmp_path):
    path = broken / name
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({CANARY: CANARY}))
    for target in (secret, Path("/dev/zero"), Path("../secret.json"), tmp_path / "none"):
        path.unlink()
        path.symlink_to(target)
        assert CANARY not in complaint(broken)
    path.unlink()
    os.mkfifo(path)
    assert "is not a file" in complaint(broken)
    path.unlink()
    path.mkdir()
    assert "is not a file" in complaint(broken)
    path.rmdir()
    assert "is not a file" in complaint(broken)
    (broken / f"{name}.index.json").write_text("{}")
    assert "several files" in complaint(broken)


def test_a_folder_in_the_cache_of_the_hub_has_links_and_is_loaded(good, tmp_path):
    blobs, version = tmp_path / "models--a" / "blobs", tmp_path / "models--a" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    version.mkdir(parents=True)
    for number, name in enumerate(("config.json", "model.safetensors")):
        shutil.copy(good / name, blobs / str(number))
        (version / name).symlink_to(Path("../../blobs", str(number)))
    assert plain.load(version).encoder.d_model == 16


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "[" * 200_000, '{"version": NaN}', '{"version": 1e999}', '{"version": ' + "9" * 5000 + "}"],
)
def test_a_configuration_that_is_no_json_object_is_refused(text, broken):
    (broken / "config.json").write_text(text)
    assert "config.json" in complaint(broken)


def test_settings_that_are_not_finite_numbers_or_texts_are_refused(broken):
    (broken / "config.json").write_bytes(b"\xff\xfe{}")
    assert "config.json" in complaint(broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, broken):
    weights = load_file(broken / "model.safetensors")
    weights["decoder.bias"][1] = value
    save_file(weights, broken / "model.safetensors")
    assert f"1 of {len(weights)} tensors contain NaN or infinite values (decoder.bias)" in complaint(broken)


def damaged_config(config: Any, drawn: random.Random) -> None:
    """Change one to three fields of a configuration."""
    for _ in range(drawn.choice([1, 1, 2, 3])):
        section = drawn.choice([config, config["encoder"], config["encoder"], config.get("ctc")])
        if isinstance(section, dict) and section:
            key = drawn.choice(sorted(section))
            kind = drawn.random()
            if kind < 0.1:
                del section[key]
            elif kind < 0.15:
                section[f"{key}_"] = drawn.choice(VALUES)
            else:
                section[key] = drawn.choice(VALUES)
        if not isinstance(config.get("encoder"), dict):
            return


def damaged_tensors(weights: dict[str, Any], drawn: random.Random) -> None:
    """Remove, add or replace a tensor."""
    name, kind = drawn.choice(sorted(weights)), drawn.randrange(5)
    if kind == 0:
        del weights[name]
    elif kind == 1:
        weights[drawn.choice([f"{name}.more", "..", "/etc/passwd", "a\nb"])] = torch.zeros(2)
    elif kind == 2:
        weights[name] = weights[name].to(drawn.choice([torch.int8, torch.bool, torch.float16, torch.float64]))
    elif kind == 3:
        weights[name] = torch.zeros(drawn.choice([(0,), (), (3, 3), (2, 2, 2, 2)]))
    else:
        weights[name] = weights[name] * float("nan")


def damaged_bytes(path: Path, drawn: random.Random) -> None:
    """Cut, extend or change the bytes of a file."""
    content = bytearray(path.read_bytes())
    kind = drawn.randrange(4)
    if kind == 0:
        del content[drawn.randrange(len(content)) :]
    elif kind == 1:
        content += bytes(drawn.randrange(1, 100))
    else:
        header = 8 + int.from_bytes(content[:8], "little") if path.suffix == ".safetensors" else len(content)
        for _ in range(drawn.choice([1, 1, 4, 64])):
            at = drawn.randrange(min(header, len(content)) if kind == 2 else len(content))
            content[at] = drawn.choice([0, 0xFF, 0x80, drawn.randrange(256)])
    path.write_bytes(content)


def run_fuzzer(good: Path, folder: Path, inputs: int, seed: int) -> Counter[str]:
    """Load damaged copies of a folder. Return the number of each outcome."""
    drawn, outcomes = random.Random(seed), Counter[str]()
    shutil.copytree(good, folder)
    config = (good / "config.json").read_text(encoding="utf-8")
    for number in range(inputs):
        shutil.copy(good / "model.safetensors", folder)
        (folder / "config.json").write_text(config, encoding="utf-8")
        if number % 4 < 2:
            changed_config(folder, lambda it: damaged_config(it, drawn))
        elif number % 4 == 2:
            weights = load_file(folder / "model.safetensors")
            damaged_tensors(weights, drawn)
            save_file(weights, folder / "model.safetensors")
        else:
            damaged_bytes(folder / drawn.choice(["config.json", "model.safetensors"]), drawn)
        start = time.monotonic()
        try:
            model = plain.load(folder).float()  # the file may have several floating-point dtypes
            if not json.loads((folder / "config.json").read_text())["encoder"].get("compile"):  # compiling is slow
                with torch.no_grad():
                    model(torch.zeros(1, 80, 50))
            outcomes["loaded"] += 1
        except UserError as error:
            assert "\n" not in str(error) and str(folder) in str(error), str(error)
            outcomes["refused"] += 1
        assert time.monotonic() - start < 5.0, (folder / "config.json").read_text(encoding="utf-8")
    return outcomes


def test_damaged_folders_are_loaded_or_refused_in_one_line(good, tmp_path):
    outcomes = run_fuzzer(good, tmp_path / "fuzz", INPUTS, seed=0)
    assert sum(outcomes.values()) == INPUTS and min(outcomes.values()) > INPUTS // 20, outcomes


@pytest.mark.slow
def test_many_damaged_folders_are_loaded_or_refused_in_one_line(good, tmp_path):
    outcomes = run_fuzzer(good, tmp_path / "fuzz", MORE_INPUTS, seed=1)
    assert sum(outcomes.values()) == MORE_INPUTS and min(outcomes.values()) > MORE_INPUTS // 20, outcomes
