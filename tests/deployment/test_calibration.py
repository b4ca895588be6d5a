"""Tests of int8 by calibration: the recordings, the inputs of the graph, and the quantized graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

pytest.importorskip("onnxruntime")

import onnx
import onnxruntime

from nemo_squeezeformer.deployment.onnx import model_files
from nemo_squeezeformer.deployment.onnx.calibration import RECORDINGS, CalibrationInputs, check_calibration, recordings
from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
from nemo_squeezeformer.deployment.onnx_stream.session import Encoder, Stream
from nemo_squeezeformer.errors import UserError
from tests.samples.asr_models import asr_model
from tests.samples.encoders import features
from tests.samples.processors import largest_error_of_int8
from tests.samples.speech import RATE, noise

STREAMING: dict[str, Any] = {
    "encoder": {"streaming": True, "att_context_size": [16, 7]},
    "preprocessor": {"normalize": "NA"},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    for number, seconds in enumerate((2.03, 1.41, 0.9)):
        soundfile.write(folder / f"{number}.wav", noise(seconds, number), RATE)
    return written(folder / "manifest.json", [f"{number}.wav" for number in range(3)])


def written(path: Path, names: list[str]) -> Path:
    path.write_text("".join(json.dumps({"audio_filepath": name}) + "\n" for name in names))
    return path


def outputs(path: Path, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first, *_ = session.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
    return torch.from_numpy(first)


def rms(found: Any, expected: Any) -> float:
    error = torch.as_tensor(found) - torch.as_tensor(expected)
    return float((error.square().mean() / torch.as_tensor(expected).square().mean()) ** 0.5)


@pytest.fixture(scope="module")
def graphs(manifest, tmp_path_factory) -> dict[str, Path]:
    """Graphs of one model in float32, in dynamic int8 and in calibrated int8."""
    folder, found = tmp_path_factory.mktemp("graphs"), {}
    forms = {"float32": ("float32", None), "dynamic": ("int8", None), "calibrated": ("int8", manifest)}
    for name, (weights, calibration) in forms.items():
        settings = GraphSettings(streaming=False, weights=weights, calibration=calibration)
        (found[name],) = model_files.export(asr_model("ctc"), folder / f"{name}.onnx", settings)
    return found


def test_calibrated_outputs_are_close_to_float32(graphs):
    x, lengths = features(2, 301, 80), torch.tensor([301, 200])
    expected = outputs(graphs["float32"], x, lengths)[0]
    assert 1e-5 < rms(outputs(graphs["calibrated"], x, lengths)[0], expected) < largest_error_of_int8(0.1)
    weights = [tensor for tensor in onnx.load(str(graphs["calibrated"])).graph.initializer if len(tensor.dims) == 2]
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in weights}


def test_only_calibrated_outputs_are_independent_of_the_other_utterances_of_the_batch(graphs):
    x, lengths = features(2, 200, 80), torch.tensor([200, 200])
    x[1] *= 20  # a loud neighbor: dynamic quantization has one scale for the batch
    for name, path in graphs.items():
        alone, beside = outputs(path, x[:1], lengths[:1])[0], outputs(path, x, lengths)[0]
        assert (rms(beside, alone) < 1e-5) == (name != "dynamic"), name


def test_the_inputs_for_streams_are_the_steps_of_the_runner(manifest, tmp_path):
    model = asr_model("ctc", **STREAMING)
    (path,) = model_files.export(model, tmp_path / "stream.onnx", GraphSettings(True))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs, found = CalibrationInputs(path, model, manifest, streaming=True), []
    while (run := inputs.get_next()) is not None:
        x, valid = session.run(None, run)[:2]
        found.append(x[0, : valid[0]])
    expected = []
    for utterance in recordings(manifest):
        samples = torch.from_numpy(soundfile.read(utterance.audio, dtype="float32")[0])[None]
        x, lengths = model.preprocessor(input_signal=samples, length=torch.tensor([samples.size(1)]))
        stream = Stream(Encoder(path))
        expected += [*stream.push(x[0, :, : lengths[0]].numpy()), *stream.finish()]
    assert len(found) == len(expected) > 6
    assert_close(np.concatenate(found), np.concatenate(expected))


def test_calibrated_streams_are_close_to_float32(manifest, tmp_path):
    found = {}
    samples = torch.from_numpy(noise(2.0, seed=7))[None].float()
    x, _ = asr_model("ctc", **STREAMING).preprocessor(input_signal=samples, length=torch.tensor([samples.size(1)]))
    for name, calibration in (("float32", None), ("int8", manifest)):
        settings = GraphSettings(streaming=True, weights=name, calibration=calibration)
        paths = model_files.export(asr_model("transducer", **STREAMING), tmp_path / f"{name}.onnx", settings)
        stream = Stream(Encoder(paths[0]))
        found[name] = np.concatenate([*stream.push(x[0].numpy()), *stream.finish()], axis=1)
    assert 1e-5 < rms(found["int8"], found["float32"]) < largest_error_of_int8(0.1)


def test_the_recordings_are_limited_and_spread_over_the_manifest(manifest):
    names = [f"{number % 3}.wav" for number in range(3 * RECORDINGS)]
    many = written(manifest.with_name("many.json"), [*names[:-1], "0.wav"])
    found = recordings(many)
    assert len(found) == RECORDINGS
    assert all(utterance.audio == str(manifest.with_name("0.wav")) for utterance in found)  # every third row


def test_a_manifest_that_cannot_be_used_is_refused(manifest):
    with pytest.raises(UserError, match=r"line 2: .*missing\.wav"):
        check_calibration(written(manifest.with_name("bad.json"), ["0.wav", "missing.wav"]))
    with pytest.raises(UserError, match=r"nowhere\.json"):
        check_calibration(manifest.with_name("nowhere.json"))
    soundfile.write(manifest.with_name("short.wav"), np.zeros(20), RATE)
    short = written(manifest.with_name("short.json"), ["short.wav"])
    inputs = CalibrationInputs(Path("unused.onnx"), asr_model("ctc"), short, streaming=False)
    with pytest.raises(UserError, match="shorter than a feature frame"):
        inputs.get_next()
