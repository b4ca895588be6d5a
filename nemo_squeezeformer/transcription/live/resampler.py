"""The change of the sample rate of audio that arrives in blocks."""

from __future__ import annotations

import math

import numpy as np

from nemo_squeezeformer.errors import UserError

Samples = np.ndarray


class Resampler:
    """A callable that changes the sample rate of audio block by block.

    The joined results equal the resampled whole recording. By default, librosa uses the same resampler with the same
    quality, and NeMo uses librosa.

    Args:
        source_rate: sample rate of the source in Hz.
        rate: sample rate of the results in Hz.

    Raises:
        UserError: the two sample rates differ, and the package soxr is not installed.
    """

    def __init__(self, source_rate: int, rate: int):
        self.ratio = rate / source_rate
        self.received, self.made = 0, 0
        self.stream = None
        if source_rate != rate:
            try:
                import soxr
            except ImportError as error:
                raise UserError(
                    f"the audio has a sample rate of {source_rate} Hz, but the model needs {rate} Hz; install the "
                    "resampler (pip install soxr), or resample the audio"
                ) from error
            self.stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality="HQ")

    def __call__(self, block: Samples, last: bool = False) -> Samples:
        """Return the next samples (T,) for a block (S,). ``last`` is True for the last block, which may be empty."""
        if self.stream is None:
            return block
        self.received += len(block)
        block = self.stream.resample_chunk(block, last=last)
        self.made += len(block)
        # librosa rounds the length up too.
        return np.pad(block, (0, max(math.ceil(self.received * self.ratio) - self.made, 0))) if last else block
