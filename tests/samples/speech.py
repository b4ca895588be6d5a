"""Recordings of noise and their manifests. Models cannot learn from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RATE = 16_000
SECONDS = [0.9, 2.0, 0.005, 1.437, 1.1]  # the third is less than a feature frame


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Return samples `(T,)` of a sound that changes four times per second."""
    generator = np.random.default_rng(seed)
    tones = np.repeat(generator.uniform(100, 4000, 1 + int(4 * seconds)), RATE // 4)[: int(seconds * RATE)]
    sound = 0.3 * np.sin(2 * np.pi * np.cumsum(tones) / RATE) + 0.03 * generator.standard_normal(len(tones))
    return sound.astype(np.float32)


def write_noises(folder: Path, seconds: Sequence[float] = (2.3, 1.1, 0.31, 1.77)) -> list[str]:
    """Write a WAV file of noise for each length in ``seconds``. The loudness of the noise changes over time."""
    rng, paths = np.random.default_rng(0), []
    for i, duration in enumerate(seconds):
        t = np.arange(int(RATE * duration))
        loudness = 10.0 ** (-1.5 + np.sin(t / 900.0 + i))
        paths.append(str(folder / f"noise_{i}.wav"))
        soundfile.write(paths[-1], loudness * 0.2 * rng.standard_normal(len(t)), RATE)
    return paths


def write_manifest(folder: Path, utterances: int = 8, seconds: float = 1.0, name: str = "train") -> Path:
    """Write a NeMo manifest and its 16 kHz WAV files to ``folder``.

    Each text has two number words. The paths of the files are relative to the manifest.
    """
    rng = np.random.default_rng(len(name))
    rows = []
    for i in range(utterances):
        file = f"{name}_{i}.wav"
        soundfile.write(folder / file, 0.1 * rng.standard_normal(int(RATE * seconds)), RATE)
        text = f"{WORDS[i % 10]} {WORDS[(3 * i + 1) % 10]}"
        rows.append({"audio_filepath": file, "duration": seconds, "text": text})
    manifest = folder / f"{name}.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest
