"""The features of a whole utterance, with the normalization of NeMo's AudioToMelSpectrogramPreprocessor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.features import LogMel
from nemo_squeezeformer.deployment.onnx_stream.metadata import ORIGINAL
from nemo_squeezeformer.deployment.onnx_stream.original_features import original_features
from nemo_squeezeformer.errors import UserError

LEAST_DEVIATION = 1e-5  # is added to the standard deviation
PIECE = 60  # seconds whose spectra are computed at once; the spectra of an hour would take over 2 GiB


def utterance_features(samples: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Return the features of an utterance, (n,) -> (F, T). An utterance that is shorter than a frame gives (F, 0).

    Args:
        samples: Samples of the whole utterance.
        settings: Field ``features`` of the model's metadata.

    Raises:
        UserError: The normalization is unknown.
    """
    if settings["normalize"] == ORIGINAL:
        return original_features(samples, dict(settings))
    log_mel, piece = LogMel({**settings, "normalize": None}), PIECE * settings["sample_rate"]
    pieces = [log_mel.push(samples[at : at + piece]) for at in range(0, len(samples), piece)]
    return normalized(np.concatenate([*pieces, log_mel.finish()], axis=1), settings["normalize"])


def normalized(features: np.ndarray, normalize: Any) -> np.ndarray:
    """Return the features (F, T) after NeMo's ``normalize_batch``.

    Args:
        features: Features of an utterance (F, T).
        normalize: ``per_feature``, ``all_features``, an object with ``fixed_mean`` and ``fixed_std``, or None.

    Raises:
        UserError: ``normalize`` is another value, or has another number of features.
    """
    if normalize is None or not features.shape[1]:
        return features
    if isinstance(normalize, Mapping):
        try:
            mean, deviation = (np.reshape(normalize[name], (-1, 1)) for name in ("fixed_mean", "fixed_std"))
            return ((features - mean) / deviation).astype(np.float32)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"the fixed normalization does not fit the features ({error}); export again") from error
    if normalize not in ("per_feature", "all_features"):
        raise UserError(f"the normalization {ascii(normalize)[:80]} is unknown; use a newer version of this package")
    x = features.astype(np.float64)
    axis = 1 if normalize == "per_feature" else None
    x = x - x.mean(axis=axis, keepdims=True)
    if (x.shape[1] if axis else x.size) == 1:  # a single value has no standard deviation
        return (x / LEAST_DEVIATION).astype(np.float32)
    return (x / (x.std(axis=axis, ddof=1, keepdims=True) + LEAST_DEVIATION)).astype(np.float32)
