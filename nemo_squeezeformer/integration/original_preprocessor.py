"""A NeMo preprocessor that computes the features of the authors' TensorFlow release."""

from __future__ import annotations

from typing import Any

from nemo.collections.asr.modules.audio_preprocessing import AudioPreprocessor
from nemo.core.neural_types import AudioSignal, LengthsType, MelSpectrogramType, NeuralType
from torch import Tensor

from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram

NORMALIZE = "utterance"


class OriginalMelSpectrogramPreprocessor(AudioPreprocessor):
    """``OriginalMelSpectrogram`` as the ``preprocessor`` of a NeMo model.

    Shapes: samples (B, N) and lengths (B,) -> features (B, F, T) and lengths (B,). The features are computed in float32
    at any precision of the model. The module has no weights.

    Args:
        sample_rate: sample rate in Hz.
        window_size: length of a window in seconds.
        window_stride: distance between windows in seconds. NeMo reads this value from the configuration to compute
            timestamps.
        features: number of mel bands.
        normalize, dither, pad_to: NeMo's programs read and set these settings in the configuration of every
            preprocessor. Only the default values are supported: normalization by the mean and variance of the
            utterance, no noise, and no padding after the last frame.

    Raises:
        ValueError: ``normalize``, ``dither`` or ``pad_to`` has another value, or ``OriginalMelSpectrogram`` refuses the
            settings.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_size: float = 0.025,
        window_stride: float = 0.01,
        features: int = 80,
        normalize: str = NORMALIZE,
        dither: float = 0.0,
        pad_to: int = 0,
    ):
        if normalize != NORMALIZE:
            raise ValueError(
                f"preprocessor.normalize={normalize!r}: expected {NORMALIZE!r}, because the authors' features are "
                "normalized over the utterance; streaming and buffered inference do not support these features, so "
                "transcribe whole recordings"
            )
        if dither or pad_to:
            raise ValueError(
                f"preprocessor.dither={dither}, pad_to={pad_to}: the authors' features use no dither and no padding; "
                "set both to 0"
            )
        featurizer = OriginalMelSpectrogram(sample_rate, window_size, window_stride, features)
        super().__init__(featurizer.win_length, featurizer.hop_length)
        self._sample_rate = sample_rate
        self.featurizer = featurizer

    @property
    def input_types(self) -> dict[str, Any]:
        return {
            "input_signal": NeuralType(("B", "T"), AudioSignal(freq=self._sample_rate)),
            "length": NeuralType(tuple("B"), LengthsType()),  # in samples
        }

    @property
    def output_types(self) -> dict[str, Any]:
        return {
            "processed_signal": NeuralType(("B", "D", "T"), MelSpectrogramType()),
            "processed_length": NeuralType(tuple("B"), LengthsType()),
        }

    def get_features(self, input_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features. NeMo's ``forward`` calls this method with float32 samples."""
        return self.featurizer(input_signal, length)
