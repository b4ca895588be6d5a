"""Tests of the authors' features as the preprocessor of a NeMo model: saving, transcribing, exporting, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.parts.utils.streaming_utils import StreamingFeatureBufferer
from numpy.testing import assert_allclose

from nemo_squeezeformer import OriginalMelSpectrogramPreprocessor
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram
from nemo_squeezeformer.deployment.onnx.description import describe_features
from nemo_squeezeformer.deployment.onnx_stream import original_features
from tests.samples.asr_models import asr_model

ORIGINAL = {"_target_": "nemo_squeezeformer.OriginalMelSpectrogramPreprocessor", "normalize": "utterance"}


def sound(n: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(n).standard_normal(n) * np.sin(np.arange(n) / 3000)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return asr_model(preprocessor=ORIGINAL)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[str]:
    """Recordings, including a silent recording and a recording shorter than half an FFT."""
    folder, paths = tmp_path_factory.mktemp("recordings"), []
    for i, samples in enumerate((sound(48_000), sound(30_011), sound(100), np.zeros(8000))):
        paths.append(str(folder / f"{i}.wav"))
        soundfile.write(paths[-1], samples, 16000, subtype="PCM_16")
    return paths


def test_the_preprocessor_gives_the_features_of_core(model):
    samples, lengths = torch.from_numpy(np.stack([sound(5000), sound(5000)[::-1].copy()])), torch.tensor([5000, 777])
    features, frames = model.preprocessor(input_signal=samples, length=lengths)
    expected, expected_frames = OriginalMelSpectrogram()(samples, lengths)
    assert torch.equal(features, expected) and torch.equal(frames, expected_frames)
    assert not [name for name in model.state_dict() if name.startswith("preprocessor")]


def test_a_restored_model_in_bfloat16_has_the_same_features(model, saved):
    restored = ASRModel.restore_from(str(saved)).eval()
    samples, lengths = torch.from_numpy(sound(9000))[None], torch.tensor([9000])
    given = {"input_signal": samples, "input_signal_length": lengths}
    with torch.no_grad():
        assert torch.equal(restored(**given)[0], model(**given)[0])
    expected, _ = model.preprocessor(input_signal=samples, length=lengths)
    low, _ = restored.to(torch.bfloat16).preprocessor(input_signal=samples, length=lengths)
    assert low.dtype == torch.bfloat16 and torch.equal(low, expected.bfloat16())


def test_nemo_transcribes_with_timestamps_and_does_not_change_the_features(model, recordings):
    samples, lengths = torch.from_numpy(sound(5000))[None], torch.tensor([5000])
    before, _ = model.preprocessor(input_signal=samples, length=lengths)
    together = [hypothesis.text for hypothesis in model.transcribe(recordings, batch_size=4, verbose=False)]
    alone = [hypothesis.text for hypothesis in model.transcribe(recordings, batch_size=1, verbose=False)]
    assert together == alone and together[0] and together[0] != together[1]
    (hypothesis,) = model.transcribe(recordings[:1], timestamps=True, verbose=False)
    assert 2.5 < hypothesis.timestamp["segment"][-1]["end"] <= 3.04  # the recording has 3 s
    # NeMo's programs set these values.
    model.preprocessor.featurizer.dither, model.preprocessor.featurizer.pad_to = 0.1, 16
    after, _ = model.preprocessor(input_signal=samples, length=lengths)
    assert torch.equal(after, before)


@pytest.mark.parametrize("setting", [{"normalize": "per_feature"}, {"dither": 1e-5}, {"pad_to": 16}], ids=str)
def test_unsupported_settings_are_refused(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}=.*the authors' features"):
        OriginalMelSpectrogramPreprocessor(**setting)
    assert OriginalMelSpectrogramPreprocessor(normalize="utterance", dither=0.0, pad_to=0).featurizer.hop_length == 160


def test_buffered_inference_is_refused(model):
    with pytest.raises(Exception, match="transcribe whole recordings"):  # Hydra wraps the error
        StreamingFeatureBufferer(model, chunk_size=1.0, buffer_size=2.0)


def test_export_of_whole_utterances_works_and_a_window_around_a_recording_has_its_text(
    saved, recordings, tmp_path, capsys
):
    assert main(["stream", str(saved), recordings[0], "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "features of the authors' models are normalized over the whole utterance" in printed.err
    final = printed.out.splitlines()[-1].removeprefix("final\t")
    output = tmp_path / "model.onnx"
    assert main(["export", str(saved), "--output", str(output)]) == 2
    assert "add --offline" in capsys.readouterr().err and not output.exists()
    pytest.importorskip("onnxruntime")
    from nemo_squeezeformer.deployment.onnx_stream.__main__ import main as onnx_stream

    assert main(["export", str(saved), "--output", str(output), "--offline"]) == 0
    capsys.readouterr()
    assert onnx_stream([str(output), *recordings]) == 0
    texts = [line.partition("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert main(["transcribe", str(saved), *recordings]) == 0
    expected = [line.partition("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert texts == expected and texts[0] and texts[0] != texts[1]
    assert final == expected[0]  # the recording is shorter than the window


def test_features_in_numpy_equal_features_in_torch(monkeypatch):
    preprocessor = OriginalMelSpectrogramPreprocessor()
    settings = describe_features(preprocessor)
    monkeypatch.setattr(original_features, "PIECE", 20)
    for n in (1, 100, 159, 160, 257, 4000, 16_159):
        expected, frames = preprocessor(input_signal=torch.from_numpy(sound(n))[None], length=torch.tensor([n]))
        found = original_features.original_features(sound(n), settings)
        assert found.shape == (80, frames.item()) and found.dtype == np.float32
        assert_allclose(found, expected[0].numpy(), atol=1e-3, rtol=0)
    assert original_features.original_features(sound(0), settings).shape == (80, 0)
    assert np.abs(found - original_features.original_features(sound(n), settings | {"preemphasis": 0.9})).max() > 0.1
