"""Tests of the mel features: the filter bank equals librosa's, and padding and pieces do not change features."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core.mel import MelSpectrogram, slaney_filterbank, spectra

BANDS = [(80, 512, 16000, 0, 8000), (64, 400, 16000, 20, 7600), (128, 512, 16000, 0, 8000), (40, 256, 8000, 0, 4000)]


@pytest.mark.parametrize("features, n_fft, rate, lowest, highest", BANDS)
@pytest.mark.parametrize("norm", ["slaney", None, 1, 2])
def test_the_filter_bank_is_librosas(features, n_fft, rate, lowest, highest, norm):
    filters = pytest.importorskip("librosa.filters")
    expected = filters.mel(sr=rate, n_fft=n_fft, n_mels=features, fmin=lowest, fmax=highest, norm=norm)
    found = slaney_filterbank(features, n_fft, rate, lowest, highest, norm)
    # Only the p-norms differ: PyTorch adds float32 numbers in another order than NumPy.
    assert_close(found, torch.from_numpy(expected), atol=0 if norm in ("slaney", None) else 1e-6, rtol=0)
    assert found.count_nonzero() > 2 * features


@pytest.mark.parametrize("normalize", ["NA", "per_feature", "all_features", {"fixed_mean": [1.0], "fixed_std": [2.0]}])
def test_samples_after_an_utterance_do_not_change_its_features(normalize):
    preprocessor = MelSpectrogram(normalize=normalize, features=1 if isinstance(normalize, dict) else 20)
    torch.manual_seed(0)
    samples, lengths = torch.randn(3, 9000), torch.tensor([9000, 4321, 70])
    alone = [preprocessor(samples[i : i + 1, :n], lengths[i : i + 1]) for i, n in enumerate(lengths.tolist())]
    samples[1, 4321:] = torch.nan
    features, frames = preprocessor(samples, lengths)
    assert frames.tolist() == [56, 27, 0] == [int(n) for _, n in alone]
    for row, n, (expected, _) in zip(features, frames, alone):
        assert_close(row[:, :n], expected[0], atol=1e-5, rtol=1e-5)
        assert not row[:, n:].any()


def test_pieces_and_a_cast_to_bfloat16_do_not_change_features(monkeypatch):
    preprocessor = MelSpectrogram(features=20)
    torch.manual_seed(0)
    samples, lengths = torch.randn(2, 9000), torch.tensor([9000, 8000])
    expected, _ = preprocessor(samples, lengths)
    monkeypatch.setattr(spectra, "PIECE", 14)  # 7 frames for each of 2 utterances
    assert_close(copy.deepcopy(preprocessor).to(torch.bfloat16)(samples, lengths)[0], expected)
    assert not preprocessor.state_dict()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"window": "none"}, "window='none': expected hann"),
        ({"window_size": 1e-5}, "window_size=1e-05 at sample_rate=16000 gives 0"),
        ({"window_stride": None}, "window_stride=None at sample_rate=16000 gives 0"),
        ({"features": 0}, "features=0 gives 0"),
        ({"log_zero_guard_type": "max"}, "log_zero_guard_type='max': expected"),
        ({"log_zero_guard_value": "small"}, "log_zero_guard_value='small': expected"),
        ({"mel_norm": "htk"}, "mel_norm='htk': expected"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        MelSpectrogram(**wrong)
