"""`nemo-squeezeformer export`: the files that it writes, and its errors."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.deployment.onnx import model_files
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.recipes import build, compose
from nemo_squeezeformer.transcription.live.contexts import set_context
from tests.samples.asr_models import asr_model
from tests.samples.encoders import features
from tests.samples.model_types import MODEL_TYPES

STREAMING = {
    "encoder": {"streaming": True, "att_context_size": [[16, 7], [16, 3]]},
    "preprocessor": {"normalize": "NA"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The .nemo file of a streaming hybrid model."""
    path = tmp_path_factory.mktemp("saved") / "model.nemo"
    asr_model("hybrid", **STREAMING).save_to(str(path))
    return path


def description(path):
    return json.loads({entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}[KEY])


def test_a_transducer_gives_two_files_and_ctc_gives_one_file(saved, tmp_path, capsys):
    given = ["export", str(saved), "--output", str(tmp_path / "out.onnx")]
    assert main(given) == 0
    parts = [tmp_path / "encoder-out.onnx", tmp_path / "decoder_joint-out.onnx"]
    assert capsys.readouterr().out == "".join(f"{part}\n" for part in parts)
    assert sorted(tmp_path.iterdir()) == sorted(parts)
    found = description(parts[0])
    assert found["decoder"] == "transducer" and found["transducer"]["file"] == parts[1].name
    states = {value.name for value in onnx.load(str(parts[1])).graph.input}
    assert {state["input"] for state in found["transducer"]["states"]} < states

    assert main([*given, "--decoder", "ctc"]) == 2
    assert f"{parts[0]} exists" in capsys.readouterr().err
    assert main([*given, "--decoder", "ctc", "--force"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.onnx'}\n"
    assert description(tmp_path / "out.onnx")["decoder"] == "ctc"
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]  # the graphs of the transducer would be old
    assert main([*given, "--force"]) == 0
    assert sorted(tmp_path.iterdir()) == sorted(parts)


@pytest.mark.parametrize("size, window, latency", [("16,7", 5 + 32, 320), ("[16, 3]", 5 + 16, 160)])
def test_a_graph_has_the_latency_that_is_asked_for(saved, tmp_path, size, window, latency):
    given = ["export", str(saved), "--output", str(tmp_path / "out.onnx"), "--decoder", "ctc"]
    assert main([*given, "--att-context-size", size, "--opset", "18"]) == 0
    steps = description(tmp_path / "out.onnx")["steps"]
    assert (steps["window"], steps["latency_ms"], steps["before_start"]) == (window, latency, 8)
    assert onnx.load(str(tmp_path / "out.onnx")).opset_import[0].version == 18


def test_offline_graphs_take_whole_utterances(saved, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "out.onnx"
    assert main(["export", str(saved), "--output", str(output), "--decoder", "ctc", "--offline"]) == 0
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["audio_signal", "length"]
    model, x, lengths = asr_model("hybrid", **STREAMING), features(2, 101, 80), torch.tensor([101, 60])
    with torch.no_grad():
        encoded, _ = model.encoder(audio_signal=x, length=lengths)
        expected = model.ctc_decoder(encoder_output=encoded)
    (output,) = session.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
    assert_close(output[0], expected[0].numpy(), atol=1e-4, rtol=0)
    assert np.abs(output[0] - output[1]).max() > 0.1


def test_mistakes_are_named(saved, tmp_path, capsys):
    def complaint(*given: str) -> str:
        assert main(["export", *given]) == 2
        assert not list(tmp_path.glob("**/*.onnx"))
        return capsys.readouterr().err

    output = ("--output", str(tmp_path / "out.onnx"))
    assert "ends in .onnx" in complaint(str(saved), "--output", str(tmp_path / "out.pt"))
    assert "there is no folder" in complaint(str(saved), "--output", str(tmp_path / "none" / "out.onnx"))
    assert "there is no model file" in complaint(str(tmp_path / "none.nemo"), *output)
    assert "[15, 3]: a chunk has right + 1" in complaint(str(saved), *output, "--att-context-size", "15,3")
    # argparse takes this value for an option, unless the value is joined to its option.
    assert "a stream needs a limit to the right" in complaint(str(saved), *output, "--att-context-size", "-1,-1")
    with pytest.raises(SystemExit):
        main(["export", str(saved), *output, "--att-context-size", "wide"])
    assert "'wide' is not a list of frames to the left and right" in capsys.readouterr().err
    asr_model("ctc").save_to(str(tmp_path / "offline.nemo"))
    assert "add --offline" in complaint(str(tmp_path / "offline.nemo"), *output)
    unlimited = {"streaming": True, "att_context_size": [[-1, -1], [16, 3]]}
    asr_model("ctc", encoder=unlimited).save_to(str(tmp_path / "unlimited.nemo"))
    assert "a stream needs a limit to the right" in complaint(str(tmp_path / "unlimited.nemo"), *output)


def test_a_transducer_with_durations_has_no_description(tmp_path):
    model = asr_model("transducer", **STREAMING)
    model.joint._num_extra_outputs = 5
    with pytest.raises(UserError, match="TDT"):
        model_files.export(model, tmp_path / "out.onnx", model_files.GraphSettings(True))


def test_a_prediction_network_without_a_row_for_the_blank_is_refused(tmp_path):
    model = asr_model("transducer", **STREAMING)
    model.decoder.blank_as_pad = False
    with pytest.raises(UserError, match="blank_as_pad=False: NeMo's export needs"):
        model_files.export(model, tmp_path / "out.onnx", model_files.GraphSettings(True))


@pytest.mark.parametrize(
    "recipe, kind, message",
    [
        ("classification", "EncDecClassificationModel", "has neither a CTC decoder nor a transducer"),
        ("hybrid_transducer_ctc_bpe_prompt", "EncDecHybridRNNTCTCBPEModelWithPrompt", "export leaves out the prompt"),
    ],
)
def test_a_model_whose_graph_would_compute_something_else_is_refused(recipe, kind, message, tmp_path):
    model = build(compose(f"squeezeformer_{recipe}", MODEL_TYPES[kind].overrides(tmp_path)))
    with pytest.raises(UserError, match=message):
        model_files.export(model, tmp_path / "out.onnx", model_files.GraphSettings(False))


def test_an_encoder_without_contexts_is_named():
    with pytest.raises(ValueError, match="an encoder of class Identity has no att_context_size; leave out"):
        set_context(SimpleNamespace(encoder=torch.nn.Identity()), [16, 3])
