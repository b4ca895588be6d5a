"""The check that a runtime computes the features of a model.

The runtimes compute the features of NeMo's ``AudioToMelSpectrogramPreprocessor`` with the settings of NeMo's recipes. A
graph does not contain the features, and a folder cannot select other features.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from nemo_squeezeformer.deployment.onnx.description import describe_features
from nemo_squeezeformer.deployment.onnx_stream.features import filterbank_of
from nemo_squeezeformer.deployment.onnx_stream.metadata import ORIGINAL
from nemo_squeezeformer.errors import UserError

RATE = 16000
WINDOW = 400  # samples in the window
EXPECTED: dict[str, Any] = {
    "sample_rate": RATE,
    "hop": 160,
    "n_fft": 512,
    "magnitude_power": 2.0,
    "log": "add",
    "log_guard": 2.0**-24,
}


def check_features(
    preprocessor: Any,
    runtime: str,
    preemphasis: float | None,
    normalize: Collection[str | None],
    sizes: Collection[int],
) -> dict[str, Any]:
    """Return the description of the features (``describe_features``) if the runtime computes these features.

    Args:
        preprocessor: Preprocessor of the NeMo model.
        runtime: Name of the runtime, for the message.
        preemphasis: The factor of the runtime's preemphasis.
        normalize: The normalizations that the runtime supports. None means no normalization.
        sizes: The numbers of mel features that the runtime supports. If empty, the runtime supports all numbers.

    Raises:
        UserError: The runtime computes other features.
    """
    found = describe_features(preprocessor)
    if found["normalize"] == ORIGINAL:
        raise UserError(
            f"{runtime} cannot compute the features of OriginalMelSpectrogramPreprocessor (variant: original); export "
            "without --for, or train with AudioToMelSpectrogramPreprocessor"
        )
    wanted = EXPECTED | {"preemphasis": preemphasis}
    differences = [f"{name}={found[name]} instead of {value}" for name, value in wanted.items() if found[name] != value]
    if found["normalize"] not in normalize:
        allowed = " or ".join(str(name) for name in normalize)
        differences.append(f"normalize={found['normalize']} instead of {allowed}")
    features = len(found["filterbank"])
    if sizes and features not in sizes:
        differences.append(f"features={features} instead of {' or '.join(map(str, sizes))}")
    if not _hann(found["window"]):
        differences.append(f"another window than a Hann window of {WINDOW} samples")
    if not differences and not _whole_band(found):
        differences.append(f"another band or scale than librosa's mel scale from 0 to {RATE // 2} Hz")
    if differences:
        raise UserError(
            f"{runtime} computes the features of NeMo's recipes, and this model has others: preprocessor with "
            f"{', '.join(differences)}; export without --for, or train with the features of the recipes"
        )
    return found


def _hann(window: list[float]) -> bool:
    return len(window) == WINDOW and bool(np.allclose(window, np.hanning(WINDOW), atol=1e-6))


def _whole_band(found: dict[str, Any]) -> bool:
    from nemo_squeezeformer.core.mel.filterbank import slaney_filterbank  # torch is not needed to import this module

    expected = slaney_filterbank(len(found["filterbank"]), EXPECTED["n_fft"], RATE, 0, RATE / 2)
    return bool(np.allclose(filterbank_of(found), expected.numpy(), atol=1e-6))
