"""NeMo's preprocessor for models of the authors' TensorFlow release: their features, by the torch module of core."""

from __future__ import annotations

from typing import Any

from nemo.collections.asr.modules.audio_preprocessing import AudioPreprocessor
from nemo.core.neural_types import AudioSignal, LengthsType, MelSpectrogramType, NeuralType
from torch import Tensor

from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram

NORMALIZE = "utterance"


class OriginalMelSpectrogramPreprocessor(AudioPreprocessor):
    """``OriginalMelSpectrogram`` as ``preprocessor`` of a NeMo model; samples (B, N), lengths (B,) -> (B, F, T), (B,)

    Computed in float32, whatever the model's precision. It has no weights.

    Args:
        sample_rate: in Hz.
        window_size: in seconds, as ``window_stride``; NeMo's timestamps read the latter in the configuration.
        features: mel bands.
        normalize, dither, pad_to: NeMo's programs read and set them in any preprocessor's configuration. These features
            have them in this one way: mean and variance of the utterance, no noise, no frames after the last.

    Raises:
        ValueError: for another ``normalize``, ``dither`` or ``pad_to``, and as ``OriginalMelSpectrogram`` does.
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
                f"preprocessor.normalize={normalize!r}: the authors' features are normalised over the utterance "
                f"({NORMALIZE!r}); streaming and buffered inference cannot have them, so transcribe whole recordings"
            )
        if dither or pad_to:
            raise ValueError(
                f"preprocessor.dither={dither}, pad_to={pad_to}: the authors' features have neither; set both to 0"
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
        """What NeMo's ``forward`` calls, with float32 samples."""
        return self.featurizer(input_signal, length)
