"""NeMo's features of long audio, made in pieces: of an hour at once, the spectra of all frames take over 2 GiB."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures, normalize_batch
from torch import Tensor

FRAMES = 6000  # a piece: a minute, at the usual 10 ms
MARGIN = 4  # frames that a piece begins before and ends after those it is for; they lack some of their samples


def in_pieces(preprocessor: Any) -> None:
    """Has ``preprocessor`` make the features of long audio in pieces, to the same values.

    One whose features are not of ``FilterbankFeatures``, or not one for each hop, stays as it is.
    """
    featurizer: Any = getattr(preprocessor, "featurizer", None)
    if type(featurizer) is not FilterbankFeatures or featurizer.exact_pad or featurizer.frame_splicing != 1:
        return
    if featurizer.win_length > featurizer.n_fft or featurizer.n_fft // 2 >= MARGIN * featurizer.hop_length:
        return
    featurizer.forward = MethodType(_forward, featurizer)


def _forward(featurizer: Any, x: Tensor, seq_len: Tensor, linear_spec: bool = False) -> tuple[Tensor, Tensor]:
    """x: (B, N) samples -> (B, F, T)"""
    hop, whole = featurizer.hop_length, FilterbankFeatures.forward
    total = x.size(1) // hop + 1
    if linear_spec or featurizer.training or featurizer.pad_to == "max" or total <= 2 * FRAMES:
        return whole(featurizer, x, seq_len, linear_spec)
    normalize, pad_to, pieces = featurizer.normalize, featurizer.pad_to, []
    featurizer.normalize, featurizer.pad_to = None, 0
    try:
        for first in range(0, total, FRAMES):
            stop = min(first + FRAMES, total)
            start = max(first - MARGIN, 0)
            samples = x[:, start * hop : (stop + MARGIN) * hop]
            valid = (seq_len - start * hop).clamp(0, samples.size(1))
            piece, _ = whole(featurizer, samples, valid)
            pieces.append(piece[..., first - start : stop - start])
    finally:
        featurizer.normalize, featurizer.pad_to = normalize, pad_to
    lengths = torch.where(seq_len == 0, 0, featurizer.get_seq_len(seq_len))
    features = torch.cat(pieces, dim=-1)
    del pieces
    absent = (torch.arange(total, device=x.device) >= lengths[:, None])[:, None]
    if normalize:
        features, _, _ = normalize_batch(features, lengths, normalize_type=normalize)
    features = features.masked_fill(absent, featurizer.pad_value)
    if pad_to and total % pad_to:
        features = torch.nn.functional.pad(features, (0, pad_to - total % pad_to), value=featurizer.pad_value)
    return features, lengths
