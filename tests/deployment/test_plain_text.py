"""Tests of models as safetensors that compute their features: the text of samples equals NeMo's, without NeMo."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from torch.testing import assert_close

from nemo_squeezeformer import plain
from nemo_squeezeformer.core.mel import MelSpectrogram
from nemo_squeezeformer.errors import UserError
from tests.samples.asr_models import asr_model, spelling_model

KINDS = [("ctc", "char", "per_feature"), ("hybrid", "bpe", "NA"), ("ctc", "bpe", "all_features")]
FEATURES: list[dict[str, Any]] = [
    {"features": 80},
    {"features": 80, "normalize": "NA"},
    {"normalize": "all_features", "pad_to": 0},
    {"mag_power": 1.0, "log": False, "pad_to": 0},
    {"preemph": None, "window": "hamming", "n_fft": 400, "window_size": 0.025},
    {"log_zero_guard_type": "clamp", "log_zero_guard_value": "eps", "lowfreq": 60, "highfreq": 7000, "mel_norm": None},
    {"window_size": None, "n_window_size": 400, "window_stride": None, "n_window_stride": 128, "sample_rate": 8000},
]


@pytest.mark.parametrize("settings", FEATURES, ids=str)
def test_the_features_are_the_features_of_nemo(settings):
    torch.manual_seed(0)
    samples, lengths = torch.randn(3, 48000) * torch.tensor([[0.1], [1e-3], [0.5]]), torch.tensor([48000, 30000, 41234])
    samples[2, 8000:] = 0.0  # digital silence
    whole = AudioToMelSpectrogramPreprocessor(**settings).eval()
    expected, expected_frames = whole(input_signal=samples, length=lengths)
    found, frames = MelSpectrogram(**{name: it for name, it in settings.items() if name != "pad_to"})(samples, lengths)
    assert torch.equal(frames, expected_frames)
    for row, other, n in zip(found, expected, frames):
        assert_close(row[:, :n], other[:, :n], atol=1e-4, rtol=1e-5)


@pytest.fixture(scope="module")
def folders(noises, tokenizer, tmp_path_factory) -> dict[tuple[str, str, str], tuple[Path, list[str]]]:
    """For each kind of model: its folder, and the texts of ``noises`` by NeMo's ``transcribe``."""
    parent, made = tmp_path_factory.mktemp("plain"), {}
    for kind, units, normalize in KINDS:
        model = spelling_model(kind, noises, units, tokenizer=tokenizer, preprocessor={"normalize": normalize})
        folder = parent / f"{kind}-{units}-{normalize}"
        plain.save(model, folder)
        if kind == "hybrid":
            model.change_decoding_strategy(decoder_type="ctc", verbose=False)
        texts = [found.text for found in model.transcribe(noises, batch_size=4, verbose=False)]
        made[kind, units, normalize] = folder, texts
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_samples_become_the_text_of_transcribe(kind, folders, noises):
    folder, texts = folders[kind]
    alone = plain.load(folder)
    samples = [soundfile.read(path, dtype="float32")[0] for path in noises]
    assert alone.transcribe(samples) == texts and len(set(texts)) == len(noises)
    assert alone.transcribe(torch.from_numpy(samples[0])) == texts[:1]
    short = [np.zeros(0, np.float32), samples[1], np.zeros(100, np.float32)]  # shorter than a frame
    assert alone.transcribe(short) == ["", texts[1], ""] and alone.transcribe([]) == []
    assert not alone.preprocessor.state_dict()


ALONE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"nemo", "lightning", "omegaconf", "librosa", "soundfile", "onnx"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import wave
import numpy
from nemo_squeezeformer import plain

with wave.open(sys.argv[2]) as file:
    samples = numpy.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32") / 32768
print(plain.load(sys.argv[1]).transcribe(samples)[0])
"""


def test_neither_nemo_nor_librosa_is_needed(folders, noises):
    folder, texts = folders[KINDS[0]]
    run = subprocess.run([sys.executable, "-c", ALONE, str(folder), noises[0]], capture_output=True, text=True)
    assert run.stdout == f"{texts[0]}\n", run.stderr


def changed(folder: Path, copy: Path, change: Any) -> Path:
    """Copy a folder to ``copy``, with ``change`` applied to the configuration."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    change(config)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda it: it.update(features=None), "describes no features"),
        (lambda it: it["features"].update({"class": "AudioToMFCCPreprocessor"}), "AudioToMFCCPreprocessor' is not"),
        (lambda it: it["features"]["settings"].update(exact_pad=True), "only exact_pad=False is supported"),
        (lambda it: it["features"]["settings"].update(new=1), "unknown settings: new"),
        (lambda it: it["features"]["settings"].update(window_size=1e9), "window_size is 1000000000.0; expected"),
        (lambda it: it.update(features="mel"), "expected an object with class and settings"),
    ],
)
def test_other_features_are_an_error_of_transcribe_but_not_of_load(change, message, folders, tmp_path):
    alone = plain.load(changed(folders[KINDS[0]][0], tmp_path / "folder", change))
    alone(torch.randn(1, 80, 40))  # the model works with features of another program
    with pytest.raises(UserError, match=message) as error:
        alone.transcribe(torch.zeros(16000))
    assert "\n" not in str(error.value)


def test_samples_of_a_wrong_shape_or_type_are_refused(folders):
    alone = plain.load(folders[KINDS[0]][0])
    for wrong in (torch.zeros(2, 16000), np.zeros(16000, np.int16), [torch.zeros(1, 10)]):
        with pytest.raises(UserError, match=r"expected numbers from -1 to 1 of one channel"):
            alone.transcribe(wrong)
    for wrong, problem in (
        ([torch.zeros(400), torch.full((400,), torch.nan)], "the samples contain NaN or infinite values; check"),
        ("audio.wav", "samples of type str: .*; give arrays or tensors"),
        (None, "samples of type NoneType: .*; give arrays or tensors"),
    ):
        with pytest.raises(UserError, match=problem):
            alone.transcribe(wrong)


def test_a_folder_with_only_an_encoder_describes_its_features_too(tmp_path):
    model = asr_model("transducer")
    plain.save(model, tmp_path / "folder")
    preprocessor, samples = plain.load_preprocessor(tmp_path / "folder"), torch.randn(1, 16000)
    found, frames = preprocessor(samples, torch.tensor([16000]))
    expected, _ = model.preprocessor(input_signal=samples, length=torch.tensor([16000]))
    assert_close(found, expected[..., : int(frames)], atol=1e-4, rtol=1e-5)
