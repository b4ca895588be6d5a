"""Utterances made of noise bursts: enough for training programs to run on, and nothing to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def write_manifest(folder: Path, utterances: int = 8, seconds: float = 1.0, name: str = "train") -> Path:
    """A NeMo manifest with that many 16 kHz wav files beside it; texts of two number words, paths relative."""
    rng = np.random.default_rng(len(name))
    rows = []
    for i in range(utterances):
        file = f"{name}_{i}.wav"
        soundfile.write(folder / file, 0.1 * rng.standard_normal(int(16000 * seconds)), 16000)
        text = f"{WORDS[i % 10]} {WORDS[(3 * i + 1) % 10]}"
        rows.append({"audio_filepath": file, "duration": seconds, "text": text})
    manifest = folder / f"{name}.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest
