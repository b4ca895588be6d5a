"""Tests that the features from NumPy in pieces equal the features of NeMo's preprocessor for the whole audio."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from numpy.testing import assert_allclose
from omegaconf import OmegaConf

from nemo_squeezeformer.deployment.onnx.description import describe_features
from nemo_squeezeformer.deployment.onnx_stream.features import LogMel
from nemo_squeezeformer.errors import UserError

SETTINGS = {
    "as in the recipes": {"features": 80, "window_size": 0.025},
    "another window, no preemphasis": {"window": "hamming", "preemph": None, "features": 23, "lowfreq": 60},
    "clamped magnitudes": {"log_zero_guard_type": "clamp", "log_zero_guard_value": "eps", "mag_power": 1.0},
    "8 kHz, n_fft not a power of 2": {"sample_rate": 8000, "n_fft": 330, "window_size": 0.03, "window_stride": 0.0125},
    "no logarithm, hop longer than the window": {"log": False, "window_size": 0.02, "window_stride": 0.025},
}


def preprocessor(**settings) -> AudioToMelSpectrogramPreprocessor:
    return AudioToMelSpectrogramPreprocessor(**{"dither": 0.0, "pad_to": 0, "normalize": "NA"} | settings).eval()


def in_pieces(log_mel: LogMel, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frames, at = [], 0
    while at < len(samples):
        piece = int(rng.choice([1, 7, 160, 1000, 5000]))
        frames.append(log_mel.push(samples[at : at + piece]))
        at += piece
    return np.concatenate([*frames, log_mel.finish()], axis=1)


@pytest.mark.parametrize("name", SETTINGS)
def test_pieces_of_any_size_give_nemos_features(name):
    nemo, rng = preprocessor(**SETTINGS[name]), np.random.default_rng(0)
    for n in (0, 1, 159, 160, 161, 4321, 16000, 20007):
        samples = (0.1 * rng.standard_normal(n) * np.sin(np.arange(n) / 700)).astype(np.float32)
        found = (
            in_pieces(LogMel(describe_features(nemo)), samples, rng) if n else LogMel(describe_features(nemo)).finish()
        )
        frames = n // nemo.featurizer.hop_length
        assert found.shape == (nemo.featurizer.nfilt, frames) and found.dtype == np.float32
        if n:
            expected, lengths = nemo(input_signal=torch.from_numpy(samples)[None], length=torch.tensor([n]))
            assert lengths.item() == frames
            # float32 is less exact near the guard of the logarithm.
            assert_allclose(found, expected[0, :, :frames].numpy(), atol=2e-3, rtol=0)
            assert np.abs(found - expected[0, :, :frames].numpy()).mean() < 1e-5 if frames else True


def test_a_frame_is_returned_with_the_last_sample_of_its_window():
    log_mel = LogMel(describe_features(preprocessor(features=80, window_size=0.025)))
    assert log_mel.push(np.zeros(199)).shape == (80, 0)
    assert log_mel.push(np.zeros(1)).shape == (80, 1)  # half a window of 400
    assert log_mel.push(np.zeros(159)).shape == (80, 0)
    assert log_mel.push(np.zeros(1)).shape == (80, 1)


def test_fixed_means_and_deviations_are_described_as_values_of_json():
    fixed = OmegaConf.create({"fixed_mean": [0.5] * 80, "fixed_std": [2.0] * 80})
    described = describe_features(preprocessor(normalize=fixed))["normalize"]
    assert json.loads(json.dumps(described)) == {"fixed_mean": [0.5] * 80, "fixed_std": [2.0] * 80}


def test_normalization_over_the_utterance_is_refused_for_a_stream():
    with pytest.raises(UserError, match=r"preprocessor.normalize='per_feature' .* normalize='NA'"):
        LogMel(describe_features(preprocessor(normalize="per_feature")))


@pytest.mark.parametrize("settings", [{"exact_pad": True}, {"frame_splicing": 3}], ids=str)
def test_settings_that_the_metadata_cannot_describe_are_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"preprocessor.{name}"):
        describe_features(preprocessor(**settings))
