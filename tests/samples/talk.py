"""Recordings of synthetic speech with known pauses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16_000
SENTENCES = (
    "turn on the kitchen light",
    "call nine five two six",
    "close the window in the hall now",
    "dim the bedroom lamp",
    "open the garden gate please",
    "turn off the radio in the office",
)


class Talk(NamedTuple):
    """Samples (T,) and the start and end of each sentence in seconds."""

    samples: np.ndarray
    spoken: list[tuple[float, float]]


def talk(pauses: Sequence[float], rate: int = RATE, noise: float = 0.0) -> Talk:
    """Return sentences of eSpeak with a pause before each sentence, and half a second of silence at the end.

    Args:
        pauses: seconds of each pause. The number of pauses is the number of sentences.
        rate: sample rate in Hz.
        noise: standard deviation of the noise in all samples.
    """
    import espeak
    import soxr

    voice = espeak.Synthesiser(espeak.Voice("en-us", "m1", 50, 150), seed=0)
    made = [trimmed(soxr.resample(voice.speak(text)[0], espeak.SAMPLE_RATE, rate)) for text in SENTENCES]
    parts, spoken, now = list[np.ndarray](), list[tuple[float, float]](), 0
    for number, pause in enumerate(pauses):
        sentence = made[number % len(made)]
        parts += [np.zeros(int(pause * rate)), sentence]
        now += len(parts[-2])
        spoken.append((now / rate, (now + len(sentence)) / rate))
        now += len(sentence)
    whole = np.concatenate([*parts, np.zeros(rate // 2)])
    whole = whole + noise * np.random.default_rng(0).standard_normal(len(whole))
    return Talk(whole.astype(np.float32), spoken)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Return the samples without the silence before and after the speech, at half of the largest possible volume."""
    samples = samples / np.abs(samples).max() / 2
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return samples[loud[0] : loud[-1] + 1]


def write_talk(path: Path, pauses: Sequence[float], rate: int = RATE) -> Path:
    soundfile.write(path, talk(pauses, rate).samples, rate)
    return path
