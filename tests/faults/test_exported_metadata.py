"""Tests that wrong metadata of an exported model gives a result or one line of error, within seconds."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnxruntime")

from nemo_squeezeformer.__main__ import main as commands
from nemo_squeezeformer.deployment.onnx_stream import session
from nemo_squeezeformer.deployment.onnx_stream.__main__ import main
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY
from nemo_squeezeformer.deployment.onnx_stream.metadata import parse as parse_metadata
from nemo_squeezeformer.errors import UserError
from tests.deployment.test_onnx_stream import described, exported  # noqa: F401  a fixture

INPUTS = 80  # number of wrong descriptions
WRONG = [None, True, -1, 0, 1, 1.5, 10**6, 10**18, -(10**18), 1e308, "", "x", "../x", "/etc/passwd", [], {}, [[]], [1]]


@pytest.fixture(scope="module")
def encoder(exported) -> Path:  # noqa: F811
    return exported.with_name(f"encoder-{exported.name}")


@pytest.fixture
def metadata(encoder) -> dict[str, Any]:
    return described(encoder)


def complaint(metadata: Any) -> str:
    with pytest.raises(UserError) as error:
        parse_metadata({KEY: metadata if isinstance(metadata, str) else json.dumps(metadata)}, "model.onnx")
    assert "\n" not in str(error.value) and "model.onnx" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "field, values",
    [
        ("steps.frames", [0, -1, None, True, 1.5, 10**18]),
        ("steps.shift", [0, 10**6]),
        ("steps.subsampling_factor", [0]),
        ("transducer.file", ["/etc/passwd", "../model.onnx", "a/b", "a\\b", "C:x", "..", "", None, 1]),
        ("transducer.max_symbols", [0, -1, "2", True]),
        ("transducer.states", [None, [{}], [[]]]),
        ("features.hop", [0, "160", 10**18]),
        ("features.n_fft", [0, 10**12]),
        ("features.filterbank", [[], [[10**12, [1.0]]], [[-1, [1.0]]], [1]]),
        ("blank", [-1, 10**6, None]),
        ("tokens", [None, [1]]),
        ("units", ["letters", [], None]),
    ],
)
def test_a_field_with_a_wrong_type_or_range_is_named(field, values, metadata):
    *above, last = field.split(".")
    for value in values:
        changed = copy.deepcopy(metadata)
        section = changed
        for name in above:
            section = section[name]
        section[last] = value
        assert field in complaint(changed)
    section.pop(last)
    assert f"the field {field} is missing" in complaint(changed)


def test_caches_of_terabytes_are_refused(metadata):
    metadata["caches"][0]["shape"] = ["batch", 10**6, 10**6]
    assert "caches" in complaint(metadata)


@pytest.mark.parametrize("text", ["", "[", "[]", "null", "[" * 100_000, '{"version": [1]}', '{"version": NaN}'])
def test_metadata_that_is_no_description_is_refused(text):
    complaint(text)


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all values, with only the first two elements of a list."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, below in inside:
        yield from fields(below, (*path, key))


@pytest.mark.slow
def test_wrong_descriptions_end_with_a_text_or_a_user_error(encoder, metadata, monkeypatch, tmp_path, capsys):
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 4000), 16000)
    drawn, places, outcomes = random.Random(0), [path for path in fields(metadata) if path], {0: 0, 2: 0}
    for _ in range(INPUTS):
        changed = copy.deepcopy(metadata)
        *above, last = drawn.choice(places)
        section = changed
        for key in above:
            section = section[key]
        if drawn.random() < 0.2:
            del section[last]
        else:
            section[last] = drawn.choice(WRONG)
        monkeypatch.setattr(session, "parse", lambda _, path, it=changed: parse_metadata({KEY: json.dumps(it)}, path))
        start = time.monotonic()
        status = main([str(encoder), "--quiet", str(tmp_path / "noise.wav")])
        outcomes[status] += 1
        assert time.monotonic() - start < 5.0
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == (status == 2) and "Traceback" not in "".join(errors)
    assert sum(outcomes.values()) == INPUTS and min(outcomes.values()) > INPUTS // 20


def test_the_command_that_exports_writes_metadata_that_is_accepted(ctc_file, tmp_path, noises):
    assert commands(["export", str(ctc_file), "--offline", "--output", str(tmp_path / "offline.onnx")]) == 0
    found = described(tmp_path / "offline.onnx")
    assert parse_metadata({KEY: json.dumps(found)}, "offline.onnx") == found
