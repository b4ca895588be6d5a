"""The mel filter bank of librosa, without librosa."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LINEAR = 1000.0  # Hz; Slaney's scale is linear up to this frequency
PER_HERTZ = 3 / 200  # mel per Hz up to LINEAR
RATIO = math.log(6.4) / 27  # logarithm of the ratio of two frequencies above LINEAR that differ by one mel


def slaney_filterbank(
    features: int, n_fft: int, sample_rate: int, lowest: float, highest: float, norm: str | float | None = "slaney"
) -> Tensor:
    """Return the mel filter bank of ``librosa.filters.mel`` (F, n_fft // 2 + 1), with Slaney's mel scale.

    Args:
        features: Number of bands F.
        n_fft: Length of the FFT in samples.
        sample_rate: Sample rate in Hz.
        lowest: Lowest frequency of the bands in Hz.
        highest: Highest frequency of the bands in Hz.
        norm: ``slaney`` divides each band by half its width in Hz. None divides by nothing. A number p divides each
            band by its p-norm.

    Raises:
        ValueError: ``norm`` is another text.
    """
    if isinstance(norm, str) and norm != "slaney":
        raise ValueError(f"mel_norm={norm!r}: expected 'slaney', a number or None")
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (sample_rate / n_fft)
    edges = _hertz(torch.linspace(_mel(lowest), _mel(highest), features + 2, dtype=torch.float64))
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bands = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp(min=0.0)
    if norm == "slaney":
        return (bands.float().double() * (2.0 / (upper - lower))).float()  # librosa rounds before the division too
    return bands.float() if norm is None else torch.nn.functional.normalize(bands.float(), p=float(norm), dim=1)


def _mel(hertz: float) -> float:
    return hertz * PER_HERTZ if hertz < LINEAR else LINEAR * PER_HERTZ + math.log(hertz / LINEAR) / RATIO


def _hertz(mel: Tensor) -> Tensor:
    above = LINEAR * torch.exp(RATIO * (mel - LINEAR * PER_HERTZ))
    return torch.where(mel < LINEAR * PER_HERTZ, mel / PER_HERTZ, above)
