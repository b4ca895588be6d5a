"""Recordings that cannot be read, each in a different way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.samples.speech import RATE, noise


def write_good(path: Path, seconds: float = 0.6, seed: int = 0) -> Path:
    soundfile.write(path, noise(seconds, seed), RATE)
    return path


def write_no_header(path: Path) -> Path:
    path.write_bytes(b"this is not audio" * 10)
    return path


def write_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def write_without_length(path: Path) -> Path:
    """Write a FLAC file as a program writes it to a pipe: the header says 0 samples, which means an unknown number."""
    soundfile.write(path, noise(1.0), RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples has 36 bits: 4 bits of this byte, and 4 bytes
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


def write_broken_in_the_middle(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    """Write a FLAC file, and overwrite 300 bytes of the middle. The header is good."""
    soundfile.write(path, noise(seconds, seed), RATE, format="FLAC")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    return path


def write_value(path: Path, value: float, at: float = 0.5, seconds: float = 1.0, seed: int = 0) -> Path:
    """Write float samples, with one ``value`` at second ``at``."""
    samples = noise(seconds, seed)
    samples[int(at * RATE)] = np.float32(value)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def write_cut(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    """Write an MP3 file without its second half. The header gives the whole length."""
    soundfile.write(path, noise(seconds, seed), RATE, format="MP3")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path
