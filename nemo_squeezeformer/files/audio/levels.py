"""The levels of recordings: the peak, and the share of samples at the limit of the format."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio.audio_file import open_audio

BLOCK = 2**18  # samples of a read call
FULL = 0.9999  # of the largest sample; the largest sample of 16 bits is 0.99997
SILENT = 0.001  # a peak of -60 dB
CLIPPED = 0.001  # share of the samples; a loud recording without clipping has single samples at the limit


@dataclass(frozen=True, slots=True)
class Level:
    """The level of an audio file.

    Attributes:
        peak: the largest absolute sample, 1 for full scale.
        full: the share of samples at full scale.
        problem: the reason why the file cannot be read to its end; empty for a good file.
    """

    peak: float = 0.0
    full: float = 0.0
    problem: str = ""

    @property
    def silent(self) -> bool:
        return not self.problem and self.peak < SILENT

    @property
    def clipped(self) -> bool:
        return not self.problem and self.full > CLIPPED


def read_levels(paths: Iterable[str]) -> dict[str, Level]:
    """Return the level of each file. All samples are read, in parallel threads, and each file once."""
    from tqdm import tqdm

    unique = list(dict.fromkeys(paths))
    with ThreadPool(os.cpu_count() or 1) as pool:
        read = tqdm(
            pool.imap(read_level, unique, chunksize=8),
            "reading audio",
            len(unique),
            disable=not sys.stderr.isatty(),
            unit=" files",
        )
        return dict(zip(unique, read))


def read_level(path: str) -> Level:
    """Return the level of an audio file, or the problem of the file."""
    import numpy as np

    peak, full, samples = 0.0, 0, 0
    try:
        with open_audio(path) as file:
            while (block := file.read(min(BLOCK, file.frames - samples // file.channels), always_2d=True)).size:
                loud = np.abs(block)
                peak = float(np.maximum(peak, loud.max()))  # NaN if a sample is NaN
                full += int((loud >= FULL).sum())
                samples += block.size
    except UserError as error:
        return Level(problem=str(error))
    if peak != peak or peak == float("inf"):
        return Level(problem=f"audio file {path!r} contains samples that are not finite (NaN or infinity)")
    return Level(peak, full / max(1, samples))
