"""The features of the authors' TensorFlow release: decibels of mel bands, normalised over the utterance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .dispatch import in_graph

PREEMPHASIS = 0.97
LEAST_POWER = 1e-10
RANGE = 80.0  # decibels below the utterance's loudest
PIECE = 8192  # frames whose spectra are there at once: of an hour's they would take over 1 GiB


class OriginalMelSpectrogram(nn.Module):
    """As ``TFSpeechFeaturizer`` of the authors' release (github.com/kssteven418/Squeezeformer) has it configured.

    The signal by its peak, pre-emphasis, power spectra of a periodic Hann window around every ``hop_length``-th sample,
    the signal mirrored at both ends, HTK mel bands from 0 Hz to half the sample rate, decibels no lower than 80 below
    the loudest, then mean 0 and variance 1 over all bands and frames. Each utterance is as if alone: what is past its
    length, even NaN, has no part in it. Where theirs stops, on less audio than half an FFT, the signal is mirrored
    again and again, as by ``numpy.pad``; silence is all zeros, and no samples have no frames.

    Args:
        sample_rate: in Hz.
        window_size: in seconds, as ``window_stride``, by which the frames are apart.
        features: mel bands.

    Raises:
        ValueError: for settings that make no window, no hop or no bands.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(
        self, sample_rate: int = 16000, window_size: float = 0.025, window_stride: float = 0.01, features: int = 80
    ):
        super().__init__()
        self.sample_rate, self.features = sample_rate, features
        self.win_length, self.hop_length = int(sample_rate * window_size), int(sample_rate * window_stride)
        for name, value, least in (
            (f"features={features}", features, 1),
            (f"window_size={window_size} at sample_rate={sample_rate}", self.win_length, 2),
            (f"window_stride={window_stride} at sample_rate={sample_rate}", self.hop_length, 1),
        ):
            if value < least:
                raise ValueError(f"{name} gives {value}; at least {least} is needed")
        self.n_fft = 2 ** (self.win_length - 1).bit_length()
        # In no checkpoint: all that they hold follows from the settings.
        self.register_buffer("window", hann_window(self.win_length), persistent=False)
        self.register_buffer("filterbank", mel_filterbank(features, self.n_fft, sample_rate), persistent=False)

    def get_seq_len(self, lengths: Tensor) -> Tensor:
        """Frames of so many samples: one at every ``hop_length``-th, from the first on."""
        return torch.where(lengths > 0, 1 + torch.div(lengths, self.hop_length, rounding_mode="floor"), 0)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) samples, (B,) how many of them are valid -> (B, F, 1 + N // hop), (B,)

        float32, also under autocast; zeros past an utterance's frames.
        """
        with torch.autocast(samples.device.type, enabled=False):
            frames = self.get_seq_len(lengths)
            return self._normalised(self._mel(self._signal(samples.float(), lengths)), frames), frames

    def _signal(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, N) -> (B, N + n_fft): by its peak, emphasised, mirrored."""
        if x.size(1) == 0:
            x = x.new_zeros(x.size(0), 1)
        lengths = lengths[:, None]
        x = x.masked_fill(torch.arange(x.size(1), device=x.device) >= lengths, 0.0)
        x = x * (1.0 / (x.abs().amax(dim=1, keepdim=True) + 1e-9))
        x = torch.cat([x[:, :1], x[:, 1:] - PREEMPHASIS * x[:, :-1]], dim=1)
        margin = self.n_fft // 2
        around = torch.arange(margin, device=x.device)
        before, after = around - margin + 0 * lengths, around + lengths
        padded = torch.cat([x.gather(1, mirrored(before, lengths)), x, x.new_zeros(x.size(0), margin)], dim=1)
        return padded.scatter(1, margin + after, x.gather(1, mirrored(after, lengths)))

    def _mel(self, x: Tensor) -> Tensor:
        """(B, N + n_fft) -> (B, F, 1 + N // hop) power"""
        if in_graph():  # where the number of pieces would be a constant
            return self._mel_at_once(x)
        total, together = 1 + (x.size(1) - self.n_fft) // self.hop_length, max(PIECE // x.size(0), 1)
        ends = [(first, min(first + together, total) - 1) for first in range(0, total, together)]
        pieces = [x[:, first * self.hop_length : last * self.hop_length + self.n_fft] for first, last in ends]
        return torch.cat([self._mel_at_once(piece) for piece in pieces], dim=-1)

    def _mel_at_once(self, x: Tensor) -> Tensor:
        hop, window = self.hop_length, self.window
        spectra = torch.stft(x, self.n_fft, hop, self.win_length, window, center=False, return_complex=True)
        return torch.matmul(self.filterbank, torch.view_as_real(spectra).square().sum(-1))

    def _normalised(self, power: Tensor, frames: Tensor) -> Tensor:
        """(B, F, T), (B,) how many of T are valid -> (B, F, T)"""
        absent = (torch.arange(power.size(2), device=power.device) >= frames[:, None])[:, None]
        decibels = 10.0 * power.clamp(min=LEAST_POWER).log10()
        loudest = decibels.masked_fill(absent, -math.inf).amax(dim=(1, 2), keepdim=True)
        # From the loudest, all of silence is exactly 0, and so is its mean.
        x = (decibels - loudest).clamp(min=-RANGE).masked_fill(absent, 0.0)
        values = (frames * power.size(1)).clamp(min=1)[:, None, None]
        x = (x - x.sum(dim=(1, 2), keepdim=True) / values).masked_fill(absent, 0.0)
        return x / (x.square().sum(dim=(1, 2), keepdim=True) / values + 1e-9).sqrt()

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> OriginalMelSpectrogram:
        move: Any = super()._apply
        move(fn, recurse)
        # A model that is cast to bfloat16 must not round what its features are computed with.
        device = self.window.device
        self.window = hann_window(self.win_length).to(device)
        self.filterbank = mel_filterbank(self.features, self.n_fft, self.sample_rate).to(device)
        return self


def hann_window(length: int) -> Tensor:
    """(length,) as TensorFlow's periodic one, which is symmetric where the length is odd."""
    return torch.hann_window(length, periodic=length % 2 == 0)


def mel_filterbank(features: int, n_fft: int, sample_rate: int) -> Tensor:
    """(F, n_fft // 2 + 1) triangles of height 1, equally wide in HTK's mel; 0 Hz has no part in any."""
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[1:]
    edges = torch.linspace(0.0, _mel(bins[-1:]).item(), features + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel = _mel(bins)
    triangles = torch.minimum((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)).clamp(min=0.0)
    return torch.nn.functional.pad(triangles, (1, 0)).float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log(1.0 + hertz / 700.0)


def mirrored(index: Tensor, n: Tensor) -> Tensor:
    """Where in a signal of ``n`` samples, mirrored at its ends as often as needed, sample ``index`` is."""
    period = (2 * n - 2).clamp(min=1)
    index = index % period
    return torch.minimum(index, period - index)
