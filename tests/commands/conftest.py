"""Manifests of noise for the commands that transcribe."""

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
    """Writes ``rows.jsonl``: rows of whole files, ``0.wav`` and so on, which are made; and rows of parts of them."""

    def write(whole: Sequence[dict[str, Any]], *parts: dict[str, Any]) -> Path:
        rows = [{"audio_filepath": f"{number}.wav", **row} for number, row in enumerate(whole)]
        for number, row in enumerate(rows):
            soundfile.write(tmp_path / f"{number}.wav", noise(row["duration"], number), RATE)
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *parts)))
        return path

    return write
