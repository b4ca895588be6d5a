"""The log-mel features that sherpa-onnx computes for models of NeMo, in NumPy.

sherpa-onnx uses Kaldi's frames. Frame t is centered on sample t * hop + hop / 2, and NeMo's frame t on sample t * hop.
Mirror images of the samples precede the first sample and follow the last sample, and NeMo has zeros there. Both have
the mel scale of librosa. For offline transducers, sherpa-onnx 2.0.1 has another window, and another band unless the
option ``--high-freq=0`` is given: see ``OFFLINE_TRANSDUCER`` and ``WHOLE_BAND``.
"""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np

RATE, WINDOW, HOP, FFT = 16000, 400, 160, 512
HANN = np.hanning(WINDOW + 1)[:-1]  # the window of NeMo ends with a zero too
WHOLE_BAND: dict[str, Any] = {"window": np.hanning(WINDOW) ** 0.85}  # Povey's window
OFFLINE_TRANSDUCER: dict[str, Any] = {"band": 7600, **WHOLE_BAND}


def features(
    samples: np.ndarray, per_feature: bool = False, mels: int = 80, band: float = 8000, window: np.ndarray = HANN
) -> np.ndarray:
    """Return the features (F, T) of the samples of a whole recording, from 0 to ``band`` Hz.

    With ``per_feature``, the features are normalized over time, and the logarithm has the guard of NeMo.
    """
    frames = (len(samples) + HOP // 2) // HOP
    at = HOP * np.arange(frames)[:, None] + HOP // 2 - WINDOW // 2 + np.arange(WINDOW)
    at = np.where(at < 0, -at - 1, at)
    at = np.where(at >= len(samples), 2 * len(samples) - 1 - at, at)
    pieces = np.asarray(samples, dtype=np.float64)[at]
    pieces = pieces - 0.97 * np.concatenate([pieces[:, :1], pieces[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(pieces * window, FFT)) ** 2
    filters = librosa.filters.mel(sr=RATE, n_fft=FFT, n_mels=mels, fmin=0, fmax=band)
    if per_feature:
        return normalized(np.log(filters @ power.T + 2.0**-24).astype(np.float32))
    return np.log(np.maximum(filters @ power.T, np.finfo(np.float32).eps)).astype(np.float32)


def normalized(mel: np.ndarray) -> np.ndarray:
    """Return the features (F, T) with the mean 0 and the deviation 1 over time (``per_feature``).

    sherpa-onnx computes the variance from the mean of the squares, in single precision.
    """
    count, total, squares = np.float32(mel.shape[1]), np.zeros(len(mel), np.float32), np.zeros(len(mel), np.float32)
    for frame in mel.T:  # in the order of sherpa-onnx
        total, squares = total + frame, squares + frame * frame
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    return (mel - mean[:, None]) / (deviation[:, None] + np.float32(1e-5))
