"""The module that computes features from samples, for the field ``features`` of a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nemo_squeezeformer.core.mel import MelSpectrogram
from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram
from nemo_squeezeformer.errors import UserError

CLASSES: dict[str, type[nn.Module]] = {
    "AudioToMelSpectrogramPreprocessor": MelSpectrogram,
    "OriginalMelSpectrogram": OriginalMelSpectrogram,
}
# Settings that change nothing in evaluation mode, or only the padding after the last frame.
WITHOUT_EFFECT = {"dither", "pad_to", "pad_value", "rng", "nb_augmentation_prob", "nb_max_freq"}
WITHOUT_EFFECT |= {"use_torchaudio", "stft_exact_pad", "stft_conv"}  # NeMo has removed their code
USUAL = {"frame_splicing": 1, "exact_pad": False}  # only these values are supported
LARGEST = {"sample_rate": 10**5, "n_fft": 2**14, "features": 4096, "n_window_size": 2**14, "window_size": 0.16}


class Unsupported(nn.Module):
    """A preprocessor of a class or with a setting that this package does not compute. A call raises ``UserError``."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        raise UserError(f"{self.reason}; compute the features in your program, and call the model with the features")


def preprocessor_of(features: Any, source: object) -> nn.Module | None:
    """Return the module for the field ``features`` of a configuration, or None if the field is null.

    If the class or a setting is not supported, the module raises ``UserError`` when it is called. The model can be
    called with features of another program.

    Args:
        features: The field ``features``.
        source: Name of the configuration in error messages.
    """
    if features is None:
        return None
    try:
        return _built(features).eval()
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return Unsupported(f"{source}: features: {reason}")


def _built(features: Any) -> nn.Module:
    if not isinstance(features, Mapping) or not isinstance(features.get("settings"), Mapping):
        raise ValueError(f"expected an object with class and settings, not {ascii(features)[:80]}")
    name, settings = features.get("class"), dict(features["settings"])
    if name not in CLASSES:
        raise ValueError(f"class {ascii(name)[:80]} is not supported")
    for setting, usual in USUAL.items():
        if settings.pop(setting, usual) != usual:
            raise ValueError(f"only {setting}={usual} is supported")
    settings = {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT}
    if unknown := sorted(set(settings) - set(inspect.signature(CLASSES[name]).parameters)):
        raise ValueError(f"unknown settings: {', '.join(ascii(key[:100])[1:-1] for key in unknown)}")
    for setting, most in LARGEST.items():  # a larger number could fill the memory
        value = settings.get(setting)
        if value is not None and not 0 < value <= most:
            raise ValueError(f"{setting} is {ascii(value)[:80]}; expected a number up to {most}")
    return CLASSES[name](**settings)
