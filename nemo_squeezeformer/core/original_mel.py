"""The features of the authors' TensorFlow release: decibels of mel bands, normalized over the utterance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .frames.entrance import checked_lengths
from .mel.spectra import in_pieces

PREEMPHASIS = 0.97
LEAST_POWER = 1e-10
RANGE = 80.0  # decibels below the loudest value of the utterance; lower values are clipped


class OriginalMelSpectrogram(nn.Module):
    """The features of ``TFSpeechFeaturizer`` in the authors' release (github.com/kssteven418/Squeezeformer).

    The steps are:

    1. Divide the signal by its peak, and apply pre-emphasis.
    2. Mirror the signal at both ends.
    3. Compute power spectra with a periodic Hann window around every ``hop_length``-th sample.
    4. Sum the power spectra to HTK mel bands from 0 Hz to half the sample rate.
    5. Convert to decibels, and clip at 80 decibels below the loudest value of the utterance.
    6. Normalize to mean 0 and variance 1 over all bands and frames of the utterance.

    Samples after the length of an utterance have no influence, even NaN. The authors' code fails on audio shorter than
    half an FFT. This class mirrors a short signal repeatedly, as ``numpy.pad`` does. The features of silence are zeros.
    An utterance without samples has no frames.

    Args:
        sample_rate: Sample rate in Hz.
        window_size: Length of the window in seconds.
        window_stride: Distance between two frames in seconds.
        features: Number of mel bands F.

    Raises:
        ValueError: The settings give an empty window, an empty hop or no mel bands.
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
        # The state dict does not contain the window and the filter bank, which follow from the settings.
        self.register_buffer("window", hann_window(self.win_length), persistent=False)
        self.register_buffer("filterbank", mel_filterbank(features, self.n_fft, sample_rate), persistent=False)

    def get_seq_len(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) for ``lengths`` (B,) samples.

        A frame is at every ``hop_length``-th sample, beginning with sample 0.
        """
        return torch.where(lengths > 0, 1 + torch.div(lengths, self.hop_length, rounding_mode="floor"), 0)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features: samples (B, N) -> (B, F, 1 + N // hop_length).

        Args:
            samples: Audio samples (B, N).
            lengths: Number of valid samples (B,).

        Returns:
            The features and the number of valid frames (B,). The features are float32, also under autocast. The frames
            after the valid frames are zeros.

        Raises:
            ValueError: ``lengths`` has another number of utterances, or a length is not a whole number from 0 to N.
        """
        lengths = checked_lengths(samples, lengths, dim=1, what="samples")
        with torch.autocast(samples.device.type, enabled=False):
            frames = self.get_seq_len(lengths)
            return self._normalised(self._mel(self._signal(samples.float(), lengths)), frames), frames

    def _signal(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Divide the signal by the peak, apply pre-emphasis, and mirror the signal: (B, N) -> (B, N + n_fft)."""
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
        """Compute the power of the mel bands: (B, N + n_fft) -> (B, F, 1 + N // hop_length)."""
        return in_pieces(self._mel_at_once, x, self.n_fft, self.hop_length)

    def _mel_at_once(self, x: Tensor) -> Tensor:
        hop, window = self.hop_length, self.window
        spectra = torch.stft(x, self.n_fft, hop, self.win_length, window, center=False, return_complex=True)
        return torch.matmul(self.filterbank, torch.view_as_real(spectra).square().sum(-1))

    def _normalised(self, power: Tensor, frames: Tensor) -> Tensor:
        """Convert ``power`` to decibels, and normalize the decibels: (B, F, T) -> (B, F, T).

        ``frames`` (B,) is the number of valid frames.
        """
        absent = (torch.arange(power.size(2), device=power.device) >= frames[:, None])[:, None]
        decibels = 10.0 * power.clamp(min=LEAST_POWER).log10()
        loudest = decibels.masked_fill(absent, -math.inf).amax(dim=(1, 2), keepdim=True)
        # Relative to the loudest value, silence is exactly 0 everywhere, so that the mean of silence is 0 too.
        x = (decibels - loudest).clamp(min=-RANGE).masked_fill(absent, 0.0)
        values = (frames * power.size(1)).clamp(min=1)[:, None, None]
        x = (x - x.sum(dim=(1, 2), keepdim=True) / values).masked_fill(absent, 0.0)
        return x / (x.square().sum(dim=(1, 2), keepdim=True) / values + 1e-9).sqrt()

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> OriginalMelSpectrogram:
        move: Any = super()._apply
        move(fn, recurse)
        # Casting a model to bfloat16 must not round the window and the filter bank.
        device = self.window.device
        self.window = hann_window(self.win_length).to(device)
        self.filterbank = mel_filterbank(self.features, self.n_fft, self.sample_rate).to(device)
        return self


def hann_window(length: int) -> Tensor:
    """Return TensorFlow's periodic Hann window (length,), which is symmetric if the length is odd."""
    return torch.hann_window(length, periodic=length % 2 == 0)


def mel_filterbank(features: int, n_fft: int, sample_rate: int) -> Tensor:
    """Return the mel filter bank (F, n_fft // 2 + 1): triangles of height 1, equally wide on HTK's mel scale.

    The weight of 0 Hz is 0 in all bands.
    """
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[1:]
    edges = torch.linspace(0.0, _mel(bins[-1:]).item(), features + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel = _mel(bins)
    triangles = torch.minimum((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)).clamp(min=0.0)
    return torch.nn.functional.pad(triangles, (1, 0)).float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log(1.0 + hertz / 700.0)


def mirrored(index: Tensor, n: Tensor) -> Tensor:
    """Convert ``index`` in the mirrored signal to the index of the same sample in the signal of ``n`` samples."""
    period = (2 * n - 2).clamp(min=1)
    index = index % period
    return torch.minimum(index, period - index)
