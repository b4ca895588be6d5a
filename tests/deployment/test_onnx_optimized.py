"""Tests that graphs of optimized encoders equal the encoder, and that quantized graphs are close to the encoder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("onnxruntime")

import onnxruntime

from benchmarks.measuring.encoders import Encoders
from benchmarks.onnx import speed as onnx_speed
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.frames.masks import Context, Frames
from nemo_squeezeformer.deployment.onnx import graph_kernel, model_files
from nemo_squeezeformer.deployment.onnx.graph_kernel import GraphKernel
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY
from tests.samples.asr_models import asr_model
from tests.samples.encoders import features
from tests.samples.processors import largest_error_of_int8

STREAMING: dict[str, Any] = {
    "encoder": {"streaming": True, "att_context_size": [16, 7]},
    "preprocessor": {"normalize": "NA"},
}
OFFLINE: dict[str, dict[str, Any]] = {
    "unlimited": {},
    "chunks without look-ahead": {"streaming": True, "att_context_size": [4, 3]},
    "Conformer's layers": {"block": "conformer", "conv_norm_type": "group_norm2", "xscaling": False},
    "windows": {"self_attention_model": "rel_pos_local_attn", "att_context_size": [8, 8]},
    "absolute positions": {"self_attention_model": "abs_pos"},
    "rotary positions": {"self_attention_model": "rope"},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A CTC model, its .nemo file, and the graphs that the command exports, by the dtype of the weights."""
    folder = tmp_path_factory.mktemp("exported")
    model = asr_model("ctc")
    model.save_to(str(folder / "model.nemo"))
    paths = {form: folder / f"{form}.onnx" for form in ("float32", "int8")}
    for form, path in paths.items():
        given = ["export", str(folder / "model.nemo"), "--output", str(path), "--offline"]
        assert main([*given, "--int8"] if form == "int8" else given) == 0
    return model, folder / "model.nemo", paths


def open_graph(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def outputs(graph: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    first, *_ = graph.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
    return torch.from_numpy(first)


def weights_of(path: Path) -> set[int]:
    """Return the data types of all matrices among the weights."""
    return {tensor.data_type for tensor in onnx.load(str(path)).graph.initializer if len(tensor.dims) == 2}


@pytest.mark.parametrize("name", OFFLINE)
def test_graphs_equal_the_encoder_before_optimization(name, tmp_path, monkeypatch):
    # With these limits, the lengths below test both cases: all queries in one block, and a loop over blocks.
    monkeypatch.setattr(graph_kernel, "LARGEST", 2 * 2 * 20**2)
    monkeypatch.setattr(graph_kernel, "BLOCK", 7)
    model = asr_model("transducer", encoder=OFFLINE[name])
    cases = [(features(2, t, 80, seed=t), torch.tensor([t, max(t * 2 // 3, 1)])) for t in (1, 2, 7, 60, 101, 160)]
    with torch.no_grad():
        expected = [model.encoder(audio_signal=x, length=lengths) for x, lengths in cases]
    graph = open_graph(model_files.export(model, tmp_path / "out.onnx", model_files.GraphSettings(False))[0])
    for (x, lengths), (encodings, valid) in zip(cases, expected):
        found = outputs(graph, x, lengths)
        for row, (one, n) in enumerate(zip(encodings, valid)):
            assert_close(found[row, :, :n], one[:, :n], atol=1e-5, rtol=0)
        assert (found[0, :, :1] - found[1, :, :1]).abs().max() > 1e-2  # other features give other encodings


@pytest.mark.parametrize("context", [Context(), Context(3, 2), Context(-1, 0)], ids=str)
@pytest.mark.parametrize("t", [1, 2, 9, 16])
def test_attention_of_graphs_equals_the_reference_implementation(context, t, monkeypatch):
    generator = torch.Generator().manual_seed(t)
    content, position, k, v = (torch.randn(2, 3, t, 5, generator=generator) for _ in range(4))
    p = torch.randn(1, 3, 2 * t - 1, 5, generator=generator)
    frames = Frames.of(torch.tensor([t, (t + 1) // 2]), t, context)
    kept = torch.nn.Dropout(0.0)
    expected = PlainKernel()(Operands(content, k, v, position, p), frames, kept)
    assert_close(GraphKernel()(Operands(content, k, v, position, p), frames, kept), expected, atol=1e-5, rtol=0)
    if t > 1:
        other = GraphKernel()(Operands(content, k, v, position, p.flip(2)), frames, kept)
        assert (other - expected).abs().max() > 1e-2
    by_content = Operands(content, k, v)
    for largest in (2**22, 1):  # all queries at once, and a loop over blocks
        monkeypatch.setattr(graph_kernel, "LARGEST", largest)
        monkeypatch.setattr(graph_kernel, "BLOCK", 7)
        expected = PlainKernel()(by_content, frames, kept)
        assert_close(GraphKernel()(by_content, frames, kept), expected, atol=1e-5, rtol=0)


def test_a_graph_has_both_a_loop_over_blocks_and_a_single_block(exported):
    model, _, paths = exported
    branches = [node for node in onnx.load(str(paths["float32"])).graph.node if node.op_type == "If"]
    assert len(branches) == len(model.encoder.layers)
    for node in branches:
        kinds = [{inner.op_type for inner in branch.g.node} for branch in node.attribute]
        assert sorted("Loop" in kind for kind in kinds) == [False, True]


def test_int8_outputs_are_close_and_the_metadata_contains_the_dtype_of_the_weights(exported):
    model, file, paths = exported
    x, lengths = features(2, 301, 80), torch.tensor([301, 200])
    with torch.no_grad():
        encodings, _ = model.encoder(audio_signal=x, length=lengths)
        expected = model.decoder(encoder_output=encodings)[0]
    rms = {}
    for form, path in paths.items():
        (entry,) = (entry for entry in onnx.load(str(path)).metadata_props if entry.key == KEY)
        found = json.loads(entry.value)
        assert found["model"]["weights"] == form and found["features"]["normalize"] == "per_feature"
        error = outputs(open_graph(path), x, lengths)[0] - expected
        rms[form] = (error.square().mean() / expected.square().mean()) ** 0.5
    assert rms["float32"] < 1e-5 < rms["int8"] < largest_error_of_int8(0.05)
    assert onnx.TensorProto.INT8 in weights_of(paths["int8"]) - weights_of(paths["float32"])
    assert sorted(file.parent.iterdir()) == sorted([file, *paths.values()])  # no intermediate files


@pytest.mark.parametrize("positions", ["rel_pos", "rope"])
def test_float16_graphs_have_exact_angles_of_late_positions(positions, tmp_path):
    model = asr_model("transducer", encoder={"self_attention_model": positions, "time_reduce_idx": None})
    settings = model_files.GraphSettings(False, weights="float16")
    graph = onnx.load(str(model_files.export(model, tmp_path / "out.onnx", settings)[0]))
    name = next(node.output[0] for node in graph.graph.node if node.op_type == "Cos")
    graph.graph.output.extend([onnx.ValueInfoProto(name=name)])
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"audio_signal": features(1, 9000, 80).numpy(), "length": np.array([9000])}
    *_, encodings, _, cosines = session.run(None, given)
    t, width = encodings.shape[2], 2 * cosines.shape[1]
    first = t - 1 if positions == "rel_pos" else 0
    position = np.arange(first, first - t, -1) if positions == "rel_pos" else np.arange(t)
    expected = np.cos(position[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width))
    assert_close(torch.from_numpy(cosines[:t]).double(), torch.from_numpy(expected), atol=1e-3, rtol=0)


def test_int8_streams_have_the_same_caches_and_close_outputs(tmp_path):
    from nemo_squeezeformer.deployment.onnx_stream.session import Encoder, Stream

    graphs = {}
    for form in ("float32", "int8"):
        model = asr_model("transducer", **STREAMING)
        settings = model_files.GraphSettings(True, weights=form)
        paths = model_files.export(model, tmp_path / f"{form}.onnx", settings)
        assert weights_of(paths[1]) == {onnx.TensorProto.FLOAT}  # decoder and joint network
        graphs[form] = Encoder(paths[0])
    x = features(1, 200, 80)[0].numpy()
    encodings = {}
    for form, graph in graphs.items():
        stream = Stream(graph)
        encodings[form] = np.concatenate([*stream.push(x), *stream.finish()], axis=1)
    assert graphs["int8"].metadata["caches"] == graphs["float32"].metadata["caches"]
    error = encodings["int8"] - encodings["float32"]
    assert 1e-5 < np.sqrt((error**2).mean() / (encodings["float32"] ** 2).mean()) < largest_error_of_int8(0.05)


def test_onnx_runtime_does_not_fuse_sums_with_layer_norms(exported, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as-it-runs.onnx")
    onnxruntime.InferenceSession(str(exported[2]["int8"]), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
    assert "LayerNormalization" in kinds and "SkipLayerNormalization" not in kinds


def test_the_benchmark_compares_encoders_of_equal_weights(tmp_path):
    encoders = Encoders("quick", "cpu")
    rows = onnx_speed.errors(encoders, onnx_speed.graphs(encoders, tmp_path), seconds=2)[2:]
    rms = {row.strip("| ").split(" | ")[0]: float(row.split(" | ")[2]) for row in rows}
    exact = [error for name, error in rms.items() if not name.endswith("int8")]
    assert len(exact) == len(rms) - 1 >= 2 and max(exact) < 1e-5 < max(rms.values()) < largest_error_of_int8(0.05)


def test_a_missing_package_is_named_with_its_remedy(exported, tmp_path, monkeypatch, capsys):
    given = ["export", str(exported[1]), "--output", str(tmp_path / "out.onnx"), "--offline"]
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    assert main([*given, "--int8"]) == 2
    assert "pip install 'nemo-squeezeformer[onnx]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(given) == 2
    assert "pip install 'nemo-squeezeformer[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()
