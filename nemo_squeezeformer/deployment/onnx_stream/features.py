"""Log-mel features of a stream of samples, frame for frame what NeMo's AudioToMelSpectrogramPreprocessor gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from nemo_squeezeformer.errors import UserError


class LogMel:
    """Samples in, in pieces of any size, and feature frames out as soon as the last sample that they see is there.

    Args:
        settings: ``features`` of the model's metadata.

    Raises:
        UserError: for features that are normalised over the utterance, which no stream can be.
    """

    def __init__(self, settings: dict[str, Any]):
        if settings["normalize"] is not None:
            raise UserError(
                f"preprocessor.normalize={settings['normalize']!r} takes its statistics from the whole utterance; "
                "stream a model that was trained with normalize='NA'"
            )
        self.hop, self.n_fft, self.preemphasis = settings["hop"], settings["n_fft"], settings["preemphasis"]
        self.power, self.log, self.guard = settings["magnitude_power"], settings["log"], settings["log_guard"]
        self.window = np.asarray(settings["window"])
        self.filterbank = filterbank_of(settings)
        # Of the n_fft samples around a frame's middle, only those in the window count.
        self.before = self.n_fft // 2 - (self.n_fft - len(self.window)) // 2
        self.samples = np.zeros(self.before)  # from the first sample on that the next frame sees
        self.last: float | None = None  # sample, before preemphasis
        self.heard = self.given = 0  # samples and frames so far

    def push(self, samples: np.ndarray) -> np.ndarray:
        """(n,) samples -> (F, T) the frames that they complete"""
        samples = np.asarray(samples, dtype=np.float32)
        self.heard += len(samples)
        self.samples = np.concatenate([self.samples, self._emphasised(samples)])
        return self._frames(max((len(self.samples) - len(self.window)) // self.hop + 1, 0))

    def finish(self) -> np.ndarray:
        """(F, T) the frames that see beyond the last sample"""
        left = self.heard // self.hop - self.given
        missing = max(left - 1, 0) * self.hop + len(self.window) - len(self.samples)
        self.samples = np.concatenate([self.samples, np.zeros(max(missing, 0))])
        return self._frames(left)

    def _emphasised(self, samples: np.ndarray) -> np.ndarray:
        if self.preemphasis is None or not len(samples):
            return samples
        before = np.concatenate([[0.0 if self.last is None else self.last], samples[:-1]])
        self.last = float(samples[-1])
        return samples - self.preemphasis * before

    def _frames(self, t: int) -> np.ndarray:
        """(F, t) the next ones"""
        t = min(t, self.heard // self.hop - self.given)
        if t == 0:
            return np.zeros((len(self.filterbank), 0), dtype=np.float32)
        at = self.hop * np.arange(t)[:, None] + np.arange(len(self.window))
        spectrum = np.abs(np.fft.rfft(self.window * self.samples[at], n=self.n_fft))  # where in n_fft is all the same
        self.samples, self.given = self.samples[t * self.hop :], self.given + t
        mel = self.filterbank @ (spectrum**self.power).T
        if self.log is not None:
            mel = np.log(mel + self.guard if self.log == "add" else np.maximum(mel, self.guard))
        return mel.astype(np.float32)


def filterbank_of(settings: dict[str, Any]) -> np.ndarray:
    """(F, n_fft // 2 + 1) of ``features`` of the metadata."""
    filterbank = np.zeros((len(settings["filterbank"]), settings["n_fft"] // 2 + 1))
    for row, (first, weights) in zip(filterbank, settings["filterbank"]):
        row[first : first + len(weights)] = weights
    return filterbank
