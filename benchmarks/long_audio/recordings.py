"""Long recordings, made of the utterances of NeMo manifests with pauses between them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from benchmarks.measuring import recordings

RATE = 16_000


class Spoken(NamedTuple):
    """Samples (N,) and their text. A pause has an empty text."""

    samples: np.ndarray
    text: str


def utterances(manifests: Sequence[Path]) -> list[Spoken]:
    """Return each row of the manifests.

    Raises:
        SystemExit: A recording does not have 16,000 samples per second.
    """
    found = []
    for manifest in manifests:
        for row in recordings.rows(manifest):
            samples, rate = soundfile.read(row["audio_filepath"], dtype="float32")
            if rate != RATE:
                raise SystemExit(f"{row['audio_filepath']} has {rate} samples per second, but {RATE} are required")
            found.append(Spoken(samples, row["text"]))
    return found


def joined(spoken: Sequence[Spoken], minutes: float, rng: random.Random) -> list[Spoken]:
    """Return utterances and the pauses between them. Together they last ``minutes``.

    Each utterance occurs before the first repetition. The order changes with each repetition.
    """
    left = int(minutes * 60 * RATE)
    parts: list[Spoken] = []
    while True:
        order = list(spoken)
        rng.shuffle(order)
        for samples, text in order:
            pause = np.zeros(int(RATE * rng.uniform(0.2, 0.8)), dtype=np.float32)
            if len(samples) + len(pause) > left:
                return [*parts, Spoken(np.zeros(left, dtype=np.float32), "")]
            parts += [Spoken(samples, text), Spoken(pause, "")]
            left -= len(samples) + len(pause)
