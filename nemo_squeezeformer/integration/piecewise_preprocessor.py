"""NeMo's features of long audio, made in pieces: of an hour at once, the spectra of all frames take over 2 GiB."""

from __future__ import annotations

from typing import Any

import torch
from nemo.collections.asr.modules.audio_preprocessing import AudioPreprocessor, AudioToMelSpectrogramPreprocessor
from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures, normalize_batch
from torch import Tensor

FRAMES = 6000  # a piece: a minute, at the usual 10 ms
MARGIN = 4  # frames that a piece begins before and ends after those it is for; they lack some of their samples


def in_pieces(preprocessor: Any) -> Any:
    """What makes the features of long audio in pieces, to the same values as ``preprocessor``.

    A preprocessor whose features are not of ``FilterbankFeatures``, or not one for each hop, is returned as it is.
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
    """A preprocessor around the featurizer of another, whose settings NeMo's models go on reading and writing."""

    def __init__(self, whole: AudioToMelSpectrogramPreprocessor):
        AudioPreprocessor.__init__(self, whole.win_length, whole.hop_length)
        self._cfg, self._sample_rate = getattr(whole, "_cfg", None), whole._sample_rate
        self.featurizer = whole.featurizer
        self.dtype_sentinel_tensor = whole.dtype_sentinel_tensor
        self.train(whole.training)

    def get_features(self, input_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) samples -> (B, F, T)"""
        featurizer, frames = self.featurizer, input_signal.size(1) // self.featurizer.hop_length + 1
        if featurizer.training or featurizer.pad_to == "max" or frames <= 2 * FRAMES:
            return featurizer(input_signal, length)
        lengths = torch.where(length == 0, 0, featurizer.get_seq_len(length))
        return _finished(featurizer, _log_mel(featurizer, input_signal, length, frames), lengths), lengths


class _Unfinished:
    """Reads as ``featurizer`` does, but for the settings of what is done to the features of the whole audio."""

    normalize, pad_to = None, 0

    def __init__(self, featurizer: FilterbankFeatures):
        self.featurizer = featurizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.featurizer, name)


def _log_mel(featurizer: FilterbankFeatures, x: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """(B, N) samples, (B,) -> (B, F, frames), neither normalised nor padded"""
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
    """(B, F, T) -> (B, F, T) or longer: normalised and padded, as the end of ``FilterbankFeatures.forward`` does it"""
    frames, pad_to = features.size(-1), featurizer.pad_to
    absent = (torch.arange(frames, device=features.device) >= lengths[:, None])[:, None]
    if featurizer.normalize:
        features, _, _ = normalize_batch(features, lengths, normalize_type=featurizer.normalize)
    features = features.masked_fill(absent, featurizer.pad_value)
    if pad_to and frames % pad_to:
        features = torch.nn.functional.pad(features, (0, pad_to - frames % pad_to), value=featurizer.pad_value)
    return features
