"""Manifests with noise for the tests of the commands that transcribe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.samples.speech import RATE, noise


@pytest.fixture
def write_rows(tmp_path) -> Callable[..., Path]:
    """Return a function that writes the audio files ``0.wav``, ``1.wav``, ... and their manifest ``rows.jsonl``.

    The manifest has a row for each whole file, and then the given rows for parts of files.
    """

    def write(whole: Sequence[dict[str, Any]], *parts: dict[str, Any]) -> Path:
        rows = [{"audio_filepath": f"{number}.wav", **row} for number, row in enumerate(whole)]
        for number, row in enumerate(rows):
            soundfile.write(tmp_path / f"{number}.wav", noise(row["duration"], number), RATE)
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *parts)))
        return path

    return write
