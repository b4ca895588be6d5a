"""The features of samples: the logarithm of mel bands, normalized over the utterance or not normalized."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..dispatch import in_graph
from ..frames.entrance import checked_lengths
from .filterbank import slaney_filterbank
from .spectra import in_pieces

WINDOWS: dict[str, Callable[..., Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "bartlett": torch.bartlett_window,
}
NORMALIZED = ("per_feature", "all_features")  # other texts mean features without normalization, as in NeMo
LEAST_DEVIATION = 1e-5  # is added to the standard deviation


class MelSpectrogram(nn.Module):
    """The features of NeMo's ``AudioToMelSpectrogramPreprocessor`` in evaluation mode.

    Frame t is centered on sample t * hop. Zeros precede the first sample and follow the last sample. An utterance of n
    samples has n // hop frames. Samples after the length of an utterance have no influence. The features differ from
    NeMo's features by less than 1e-4. The arguments have the names and the defaults of NeMo's class.

    Args:
        sample_rate: Sample rate in Hz.
        window_size: Length of the window in seconds; None if ``n_window_size`` is given.
        window_stride: Distance between two frames in seconds; None if ``n_window_stride`` is given.
        n_window_size: Length of the window in samples.
        n_window_stride: Distance between two frames in samples.
        window: Name of the window: ``hann``, ``hamming``, ``blackman`` or ``bartlett``.
        normalize: ``per_feature``, ``all_features``, a mapping with ``fixed_mean`` and ``fixed_std``, or another value
            for no normalization.
        n_fft: Length of the FFT in samples; None means the smallest power of 2 that is not below the window.
        preemph: Factor of the pre-emphasis, or None.
        features: Number of mel bands F.
        lowfreq: Lowest frequency of the bands in Hz.
        highfreq: Highest frequency of the bands in Hz; None means half the sample rate.
        log: If True, compute the logarithm.
        log_zero_guard_type: ``add`` or ``clamp``.
        log_zero_guard_value: A number, ``tiny`` or ``eps``.
        mag_power: Power of the magnitudes of the spectrum.
        mel_norm: ``slaney`` divides each band by its width, and None means triangles of height 1. A number p divides
            each band by its p-norm.

    Raises:
        ValueError: The settings give an empty window, an empty hop or no mel bands, or a value is unknown.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        window_size: float | None = 0.02,
        window_stride: float | None = 0.01,
        n_window_size: int | None = None,
        n_window_stride: int | None = None,
        window: str = "hann",
        normalize: str | Mapping[str, Any] | None = "per_feature",
        n_fft: int | None = None,
        preemph: float | None = 0.97,
        features: int = 64,
        lowfreq: float = 0,
        highfreq: float | None = None,
        log: bool = True,
        log_zero_guard_type: str = "add",
        log_zero_guard_value: float | str = 2**-24,
        mag_power: float = 2.0,
        mel_norm: str | float | None = "slaney",
    ):
        super().__init__()
        self.win_length = int(window_size * sample_rate) if window_size else n_window_size or 0
        self.hop_length = int(window_stride * sample_rate) if window_stride else n_window_stride or 0
        for name, value, least in (
            (f"features={features}", features, 1),
            (f"window_size={window_size or n_window_size} at sample_rate={sample_rate}", self.win_length, 1),
            (f"window_stride={window_stride or n_window_stride} at sample_rate={sample_rate}", self.hop_length, 1),
        ):
            if value < least:
                raise ValueError(f"{name} gives {value}; at least {least} is needed")
        if window not in WINDOWS:
            raise ValueError(f"window={window!r}: expected {', '.join(WINDOWS)}")
        if log_zero_guard_type not in ("add", "clamp"):
            raise ValueError(f"log_zero_guard_type={log_zero_guard_type!r}: expected 'add' or 'clamp'")
        self.sample_rate, self.features, self.normalize = sample_rate, features, normalize
        self.n_fft = n_fft or 2 ** math.ceil(math.log2(self.win_length))
        self.preemph, self.mag_power, self.log = preemph, mag_power, log
        self.clamp, self.guard = log_zero_guard_type == "clamp", guard_value(log_zero_guard_value)
        self._made = (window, features, lowfreq, highfreq or sample_rate / 2, mel_norm)
        # The state dict does not contain the window and the filter bank, which follow from the settings.
        self.register_buffer("window", None, persistent=False)
        self.register_buffer("filterbank", None, persistent=False)
        self._make(torch.device("cpu"))

    def get_seq_len(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) for ``lengths`` (B,) samples."""
        return torch.div(lengths + self.n_fft // 2 * 2 - self.n_fft, self.hop_length, rounding_mode="floor").clamp(0)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features: samples (B, N) -> (B, F, T), where T is the number of frames of the longest utterance.

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
            frames = torch.where(lengths > 0, self.get_seq_len(lengths), 0)
            x = self._mel(self._signal(samples.float(), lengths))
            x = x if in_graph() else x[..., : int(frames.max())]
            absent = (torch.arange(x.size(2), device=x.device) >= frames[:, None])[:, None]
            return self._normalised(x, absent, frames).masked_fill(absent, 0.0), frames

    def _signal(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Apply pre-emphasis, and add zeros at both ends: (B, N) -> (B, N + n_fft)."""
        x = x.masked_fill(torch.arange(x.size(1), device=x.device) >= lengths[:, None], 0.0)
        if self.preemph is not None:
            emphasised = torch.cat([x[:, :1], x[:, 1:] - self.preemph * x[:, :-1]], dim=1)
            x = emphasised.masked_fill(torch.arange(x.size(1), device=x.device) >= lengths[:, None], 0.0)
        return torch.nn.functional.pad(x, (self.n_fft // 2, self.n_fft // 2))

    def _mel(self, x: Tensor) -> Tensor:
        """Compute the mel bands: (B, N + n_fft) -> (B, F, 1 + N // hop_length)."""
        return in_pieces(self._mel_at_once, x, self.n_fft, self.hop_length)

    def _mel_at_once(self, x: Tensor) -> Tensor:
        hop, window = self.hop_length, self.window
        spectra = torch.stft(x, self.n_fft, hop, self.win_length, window, center=False, return_complex=True)
        power = torch.view_as_real(spectra).square().sum(-1)
        x = torch.matmul(self.filterbank, power if self.mag_power == 2.0 else power.sqrt().pow(self.mag_power))
        if not self.log:
            return x
        return (x.clamp(min=self.guard) if self.clamp else x + self.guard).log()

    def _normalised(self, x: Tensor, absent: Tensor, frames: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation: (B, F, T) -> (B, F, T)."""
        if isinstance(self.normalize, Mapping):
            fixed = [torch.as_tensor(self.normalize[name], device=x.device) for name in ("fixed_mean", "fixed_std")]
            mean, deviation = (values.reshape(1, -1, 1).to(x.dtype) for values in fixed)
            return (x - mean) / deviation
        if self.normalize not in NORMALIZED:
            return x
        dims = (2,) if self.normalize == "per_feature" else (1, 2)
        values = (frames if self.normalize == "per_feature" else frames * x.size(1))[:, None, None]
        x = x.masked_fill(absent, 0.0)
        x = (x - x.sum(dim=dims, keepdim=True) / values.clamp(min=1)).masked_fill(absent, 0.0)
        variance = x.square().sum(dim=dims, keepdim=True) / (values - 1).clamp(min=1)
        return x / (variance.sqrt() + LEAST_DEVIATION)

    def _make(self, device: torch.device) -> None:
        name, features, lowest, highest, norm = self._made
        self.window = WINDOWS[name](self.win_length, periodic=False).to(device)
        self.filterbank = slaney_filterbank(features, self.n_fft, self.sample_rate, lowest, highest, norm).to(device)

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> MelSpectrogram:
        move: Any = super()._apply
        move(fn, recurse)
        self._make(self.window.device)  # casting a model to bfloat16 must not round the window and the filter bank
        return self


def guard_value(value: float | str) -> float:
    """Return the smallest value before the logarithm. ``tiny`` and ``eps`` are constants of float32.

    Raises:
        ValueError: The value is another text.
    """
    if not isinstance(value, str):
        return float(value)
    if value not in ("tiny", "eps"):
        raise ValueError(f"log_zero_guard_value={value!r}: expected a number, 'tiny' or 'eps'")
    return float(getattr(torch.finfo(torch.float32), value))
