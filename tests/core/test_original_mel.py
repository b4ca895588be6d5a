"""Tests of the authors' features, against NumPy code and against numbers from the authors' program."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from nemo_squeezeformer.core.mel import spectra
from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram


def by_numpy(samples: np.ndarray, rate: int = 16000, bands: int = 80, edges: str = "reflect") -> np.ndarray:
    """Compute the features frame by frame and band by band in float64: (n,) -> (1 + n // hop, F)."""
    size, hop = rate * 25 // 1000, rate * 10 // 1000
    n_fft = 1 << (size - 1).bit_length()
    x = samples.astype(np.float64) / (np.abs(samples).max() + 1e-9)
    x = np.append(x[0], x[1:] - 0.97 * x[:-1])
    x = np.pad(x, n_fft // 2, mode=edges)
    # TensorFlow's periodic window is periodic only if its length is even.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - size % 2))
    window = np.pad(window, [(n_fft - size) // 2, -((size - n_fft) // 2)])
    frames = [x[at : at + n_fft] * window for at in range(0, len(samples) + 1, hop)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    hertz = np.arange(n_fft // 2 + 1) * rate / n_fft
    mel = 1127 * np.log(1 + hertz / 700)
    corners = np.linspace(0, mel[-1], bands + 2)
    triangles = [np.interp(mel, corners[i : i + 3], [0, 1, 0]) for i in range(bands)]
    decibels = 10 * np.log10(np.maximum(power @ np.array(triangles).T, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    return (decibels - decibels.mean()) / np.sqrt(decibels.var() + 1e-9)


def sound(n: int, seed: int = 0) -> np.ndarray:
    """Return ``n`` samples of noise with a varying volume over a tone with a rising pitch."""
    i = np.arange(n)
    noise = np.random.default_rng([seed, n]).standard_normal(n)
    return (0.2 * np.sin(1e-5 * i**2) + 0.1 * noise * np.sin(i / 900 + seed)).astype(np.float32)


def batch(signals: list[np.ndarray], past: float = math.nan) -> tuple[Tensor, Tensor]:
    """Return samples (B, N) with the value ``past`` after the end of each signal, and the lengths (B,)."""
    samples = torch.full((len(signals), max(map(len, signals))), past)
    for row, signal in zip(samples, signals):
        row[: len(signal)] = torch.from_numpy(signal)
    return samples, torch.tensor([len(signal) for signal in signals])


def check(found: Tensor, frames: Tensor, expected: list[np.ndarray]) -> None:
    """Compare features with ``expected``.

    In float32, values 80 dB below the loudest value lose up to 1e-4 of the standard deviation, and far less on average.
    """
    assert frames.tolist() == [len(each) for each in expected]
    for row, each in zip(found, expected):
        apart = row[:, : len(each)].T.numpy() - each
        assert np.abs(apart).max() < 1e-3 and np.sqrt((apart**2).mean()) < 5e-5
        assert (row[:, len(each) :] == 0).all()


def test_a_batch_of_all_lengths_equals_the_features_of_each_signal_by_numpy():
    signals = [sound(3000 + n) for n in range(160)] + [sound(257), sound(400), sound(30_000)]
    signals += [sound(4000) * scale for scale in (1e-3, 1e-6, 1e-9, 30.0)]
    signals += [np.clip(8 * sound(5000), -1, 1), np.where(np.arange(5000) < 2000, 0, sound(5000)).astype(np.float32)]
    found, frames = OriginalMelSpectrogram()(*batch(signals))
    check(found, frames, [by_numpy(signal) for signal in signals])
    # The mirrored ends change the first frame; else this test would not check them.
    assert np.abs(found[0, :, 0].numpy() - by_numpy(signals[0], edges="constant")[0]).max() > 0.1


def test_features_equal_numbers_of_the_authors_program():
    i = np.arange(1234, dtype=np.float64)
    samples = (0.2 * np.sin(0.0004 * i**2) + 0.05 * np.cos(1.7 * i)).astype(np.float32)
    found, frames = OriginalMelSpectrogram()(*batch([samples]))
    assert frames.tolist() == [8] and found.shape == (1, 80, 8)
    given = {(0, 0): 0.8262195, (0, 40): 0.4353321, (2, 5): -0.4111661, (3, 79): -1.0633063}
    given |= {(4, 20): -0.6286520, (7, 0): 0.5170467, (7, 63): 1.8988557}
    for (frame, band), value in given.items():
        assert abs(found[0, band, frame].item() - value) < 2e-5


def test_features_equal_the_golden_set(authors_run):
    golden = np.load(authors_run / "features.npz")
    found, frames = OriginalMelSpectrogram()(*batch([golden["audio"]]))
    check(found, frames, [golden["features"]])


@pytest.mark.parametrize("rate, bands", [(8000, 40), (22050, 64)])
def test_features_equal_numpy_for_other_sample_rates_and_numbers_of_bands(rate, bands):
    signals = [sound(rate // 2), sound(rate // 3)]
    found, frames = OriginalMelSpectrogram(sample_rate=rate, features=bands)(*batch(signals))
    check(found, frames, [by_numpy(signal, rate, bands) for signal in signals])


def test_an_utterance_is_the_same_alone_and_in_any_batch():
    features = OriginalMelSpectrogram()
    signals = [sound(n, seed=n) for n in (160, 90, 0, 5000, 16_001)]
    samples, lengths = batch(signals)
    together, frames = features(samples, lengths)
    louder, _ = features(torch.cat([samples[:-1], 50 * samples[-1:]]), lengths)
    assert_close(louder[:-1], together[:-1], atol=2e-6, rtol=0)
    for row, signal, t in zip(together, signals, frames.tolist()):
        alone, _ = features(*batch([signal]))
        assert_close(row[:, :t], alone[0, :, :t], atol=2e-6, rtol=0)
    shorter, _ = features(samples, (lengths - 1).clamp(min=0))
    assert (shorter - together)[-1].abs().max() > 1e-3


def test_audio_shorter_than_half_an_fft_is_mirrored_repeatedly():
    signals = [sound(n) for n in (256, 201, 200, 160, 159, 37, 3, 2, 1)]
    found, frames = OriginalMelSpectrogram()(*batch([*signals, sound(2000)]))
    assert frames.tolist() == [2, 2, 2, 2, 1, 1, 1, 1, 1, 13] and found.isfinite().all()
    check(found[:-1], frames[:-1], [by_numpy(signal) for signal in signals])


def test_features_of_silence_are_zeros_and_no_samples_give_no_frames():
    silence = np.zeros(1000, dtype=np.float32)
    found, frames = OriginalMelSpectrogram()(*batch([silence, silence[:0], sound(900)]))
    assert frames.tolist() == [7, 0, 6]
    assert (found[:2] == 0).all() and abs(found[2, :, :6].std() - 1) < 0.01
    nothing, none = OriginalMelSpectrogram()(torch.zeros(2, 0), torch.tensor([0, 0]))
    assert nothing.shape == (2, 80, 1) and (nothing == 0).all() and none.tolist() == [0, 0]


def test_long_audio_in_pieces_has_the_same_features(monkeypatch):
    samples, lengths = batch([sound(20_000), sound(9_999)])
    whole, _ = OriginalMelSpectrogram()(samples, lengths)
    at_once, compute = [], OriginalMelSpectrogram._mel_at_once
    monkeypatch.setattr(
        OriginalMelSpectrogram, "_mel_at_once", lambda self, x: (at_once.append(x.size(1)), compute(self, x))[1]
    )
    monkeypatch.setattr(spectra, "PIECE", 50)
    pieces, _ = OriginalMelSpectrogram()(samples, lengths)
    assert_close(pieces, whole, atol=2e-6, rtol=0)
    # Each row has 126 frames, in pieces of 25 frames.
    assert len(at_once) == 6 and max(at_once) == 24 * 160 + 512


def test_low_precision_does_not_change_the_features():
    samples, lengths = batch([sound(3000), sound(1234)])
    features = OriginalMelSpectrogram()
    expected, _ = features(samples, lengths)
    assert (expected - expected.bfloat16().float()).abs().max() > 1e-3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(features(samples, lengths)[0], expected)
    assert torch.equal(copy.deepcopy(features).to(torch.bfloat16)(samples, lengths)[0], expected)
    assert not features.state_dict()


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="torch.export of torch 2.6 has no Fourier transform")
def test_a_recorded_graph_works_for_other_lengths():
    features = OriginalMelSpectrogram()
    two = batch([sound(3000), sound(2000)], past=0.0)
    graph = torch.export.export(features, two, dynamic_shapes=({1: torch.export.Dim.AUTO}, None)).module()
    others = batch([sound(500), sound(7777)], past=0.0)
    assert_close(graph(*others), features(*others), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"features": 0}, "features=0"),
        ({"window_size": 0.0}, "window_size=0.0 at sample_rate=16000"),
        ({"sample_rate": 50}, "window_size=0.025 at sample_rate=50"),
        ({"window_stride": 1e-5}, "window_stride=1e-05 at sample_rate=16000"),
    ],
    ids=str,
)
def test_settings_that_give_no_features_are_refused_by_value(settings, words):
    with pytest.raises(ValueError, match=words):
        OriginalMelSpectrogram(**settings)
