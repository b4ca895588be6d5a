"""The features of the authors' TensorFlow release, computed with NumPy.

The features exist only for whole utterances, because the features are normalized over the whole utterance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.features import filterbank_of

RANGE = 80.0  # decibels between the largest and the smallest feature of an utterance
PIECE = 6000  # number of frames whose spectra are computed at once


def original_features(samples: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Return the features of an utterance: (n,) -> (F, 1 + n // hop). An utterance without samples gives (F, 0).

    Args:
        samples: Samples of the whole utterance.
        settings: Field ``features`` of the model's metadata.
    """
    hop, n_fft, filterbank = settings["hop"], settings["n_fft"], filterbank_of(settings)
    if not len(samples):
        return np.zeros((len(filterbank), 0), dtype=np.float32)
    x = np.asarray(samples, dtype=np.float64)
    x = x / (np.abs(x).max() + 1e-9)
    x = np.concatenate([x[:1], x[1:] - settings["preemphasis"] * x[:-1]])
    window, total = np.asarray(settings["window"]), 1 + len(x) // hop
    before = n_fft // 2 - (n_fft - len(window)) // 2  # number of samples in the window before the middle of a frame
    x = np.pad(x, (before, len(window) - before), mode="reflect")
    pieces = []
    for first in range(0, total, PIECE):
        at = hop * np.arange(first, min(first + PIECE, total))[:, None] + np.arange(len(window))
        # The position of the window inside n_fft changes only the phase.
        spectrum = np.abs(np.fft.rfft(window * x[at], n=n_fft))
        pieces.append(filterbank @ (spectrum ** settings["magnitude_power"]).T)
    decibels = 10.0 * np.log10(np.maximum(np.concatenate(pieces, axis=1), settings["log_guard"]))
    decibels = np.maximum(decibels - decibels.max(), -RANGE)
    return ((decibels - decibels.mean()) / np.sqrt(decibels.var() + 1e-9)).astype(np.float32)
