"""A preprocessor that computes NeMo's features of long audio in pieces, to save memory.

The spectra of all frames of one hour of audio need more than 2 GiB of memory.
"""

from __future__ import annotations

from typing import Any

import torch
from nemo.collections.asr.modules.audio_preprocessing import AudioPreprocessor, AudioToMelSpectrogramPreprocessor
from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures, normalize_batch
from torch import Tensor

FRAMES = 6000  # frames of a piece: one minute at 10 ms per frame
MARGIN = 4  # extra frames at both ends of a piece; they lack samples and are dropped


def in_pieces(preprocessor: Any) -> Any:
    """Return a preprocessor that computes the features of long audio in pieces, with the same values.

    Return ``preprocessor`` itself if the computation in pieces is not possible. One example is a
    preprocessor whose features do not come from ``FilterbankFeatures``.
    """
    featurizer: Any = getattr(preprocessor, "featurizer", None)
    if type(preprocessor) is not AudioToMelSpectrogramPreprocessor or type(featurizer) is not FilterbankFeatures:
        return preprocessor
    if featurizer.exact_pad or featurizer.frame_splicing != 1:
        return preprocessor
    if featurizer.win_length > featurizer.n_fft or featurizer.n_fft // 2 >= MARGIN * featurizer.hop_length:
        return preprocessor
    return PiecewisePreprocessor(preprocessor)


class PiecewisePreprocessor(AudioToMelSpectrogramPreprocessor):
    """A preprocessor with the same featurizer as ``whole`` that computes the features of long audio in pieces.

    NeMo's models can still read and write the settings of the featurizer.
    """

    def __init__(self, whole: AudioToMelSpectrogramPreprocessor):
        AudioPreprocessor.__init__(self, whole.win_length, whole.hop_length)
        self._cfg, self._sample_rate = getattr(whole, "_cfg", None), whole._sample_rate
        self.featurizer = whole.featurizer
        self.dtype_sentinel_tensor = whole.dtype_sentinel_tensor
        self.train(whole.training)

    def get_features(self, input_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features in pieces: samples (B, N) and lengths (B,) -> (B, F, T) and lengths (B,)."""
        featurizer, frames = self.featurizer, input_signal.size(1) // self.featurizer.hop_length + 1
        if featurizer.training or featurizer.pad_to == "max" or frames <= 2 * FRAMES:
            return featurizer(input_signal, length)
        lengths = torch.where(length == 0, 0, featurizer.get_seq_len(length))
        return _finished(featurizer, _log_mel(featurizer, input_signal, length, frames), lengths), lengths


class _Unfinished:
    """A view of ``featurizer`` without the two steps that need the whole audio: normalization and padding."""

    normalize, pad_to = None, 0

    def __init__(self, featurizer: FilterbankFeatures):
        self.featurizer = featurizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.featurizer, name)


def _log_mel(featurizer: FilterbankFeatures, x: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """Return log-mel features without normalization and padding: samples (B, N), lengths (B,) -> (B, F, frames)."""
    pieces, hop, unfinished = [], featurizer.hop_length, _Unfinished(featurizer)
    for first in range(0, frames, FRAMES):
        stop = min(first + FRAMES, frames)
        start = max(first - MARGIN, 0)
        samples = x[:, start * hop : (stop + MARGIN) * hop]
        valid = (lengths - start * hop).clamp(0, samples.size(1))
        piece, _ = FilterbankFeatures.forward(unfinished, samples, valid)
        pieces.append(piece[..., first - start : stop - start])
    return torch.cat(pieces, dim=-1)


def _finished(featurizer: FilterbankFeatures, features: Tensor, lengths: Tensor) -> Tensor:
    """Normalize and pad features as ``FilterbankFeatures.forward`` does: (B, F, T) -> (B, F, T) or longer."""
    frames, pad_to = features.size(-1), featurizer.pad_to
    absent = (torch.arange(frames, device=features.device) >= lengths[:, None])[:, None]
    if featurizer.normalize:
        features, _, _ = normalize_batch(features, lengths, normalize_type=featurizer.normalize)
    features = features.masked_fill(absent, featurizer.pad_value)
    if pad_to and frames % pad_to:
        features = torch.nn.functional.pad(features, (0, pad_to - frames % pad_to), value=featurizer.pad_value)
    return features
