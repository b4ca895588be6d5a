"""The log-mel features of a stream. Every frame equals a frame of NeMo's AudioToMelSpectrogramPreprocessor."""

from __future__ import annotations

from typing import Any

import numpy as np

from nemo_squeezeformer.errors import UserError


class LogMel:
    """The computation of feature frames from samples, which arrive in pieces of any size.

    Each frame is returned as soon as the last sample in the window of the frame is known.

    Args:
        settings: Field ``features`` of the model's metadata.

    Raises:
        UserError: The features are normalized over the whole utterance, which is unknown in a stream.
    """

    def __init__(self, settings: dict[str, Any]):
        if settings["normalize"] is not None:
            raise UserError(
                f"preprocessor.normalize={settings['normalize']!r} needs the statistics of the whole utterance; "
                "stream a model that was trained with normalize='NA'"
            )
        self.hop, self.n_fft, self.preemphasis = settings["hop"], settings["n_fft"], settings["preemphasis"]
        self.power, self.log, self.guard = settings["magnitude_power"], settings["log"], settings["log_guard"]
        self.window = np.asarray(settings["window"])
        self.filterbank = filterbank_of(settings)
        # Number of samples in the window before the middle of a frame. The other samples of n_fft have weight 0.
        self.before = self.n_fft // 2 - (self.n_fft - len(self.window)) // 2
        self.samples = np.zeros(self.before)  # begins with the first sample in the window of the next frame
        self.last: float | None = None  # last sample before preemphasis
        self.heard = self.given = 0  # number of samples and of frames so far

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Return the frames (F, T) that the next samples (n,) complete."""
        samples = np.asarray(samples, dtype=np.float32)
        self.heard += len(samples)
        self.samples = np.concatenate([self.samples, self._emphasised(samples)])
        return self._frames(max((len(self.samples) - len(self.window)) // self.hop + 1, 0))

    def finish(self) -> np.ndarray:
        """Return the last frames (F, T), whose windows extend beyond the last sample."""
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
        """Return the next ``t`` frames (F, t), or fewer frames if the stream has fewer frames."""
        t = min(t, self.heard // self.hop - self.given)
        if t == 0:
            return np.zeros((len(self.filterbank), 0), dtype=np.float32)
        at = self.hop * np.arange(t)[:, None] + np.arange(len(self.window))
        # The position of the window inside n_fft changes only the phase.
        spectrum = np.abs(np.fft.rfft(self.window * self.samples[at], n=self.n_fft))
        self.samples, self.given = self.samples[t * self.hop :], self.given + t
        mel = self.filterbank @ (spectrum**self.power).T
        if self.log is not None:
            mel = np.log(mel + self.guard if self.log == "add" else np.maximum(mel, self.guard))
        return mel.astype(np.float32)


def filterbank_of(settings: dict[str, Any]) -> np.ndarray:
    """Return the filterbank (F, n_fft // 2 + 1) from ``settings``, the field ``features`` of the metadata."""
    filterbank = np.zeros((len(settings["filterbank"]), settings["n_fft"] // 2 + 1))
    for row, (first, weights) in zip(filterbank, settings["filterbank"]):
        row[first : first + len(weights)] = weights
    return filterbank
