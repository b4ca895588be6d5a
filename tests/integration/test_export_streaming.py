"""Tests of the exported graph with caches: windows in ONNX Runtime give the output of the whole utterance in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("onnxruntime")
import onnxruntime

from nemo_squeezeformer.deployment.onnx import model_files
from nemo_squeezeformer.deployment.onnx_stream.session import Encoder
from tests.samples.asr_models import asr_model
from tests.samples.streams import noise_features, offline, streamed

RC = {"att_context_style": "chunked_limited_with_rc"}
SETTINGS: dict[str, dict[str, Any]] = {
    "80 ms": {"att_context_size": [8, 1]},
    "480 ms, nested": {"att_context_size": [12, 11], "time_reduce_idx": [1, 2], "time_recovery_idx": [3, 3]},
    "nothing to the left, kernel 1": {"att_context_size": [0, 3], "conv_kernel_size": 1, "time_reduce_idx": None},
    "40 ms": {"att_context_size": [3, 0], "time_reduce_idx": None, "block": "conformer"},
    "8x": {"att_context_size": [4, 3], "subsampling_factor": 8},
    "dcc": {"att_context_size": [5, 4, 0], "conv_context_style": "dcc", **RC},
    "dcc, look-ahead": {"att_context_size": [5, 4, 2], "conv_context_style": "dcc", **RC},
    "frame by frame, look-ahead": {"att_context_size": [5, 2], "att_context_style": "regular"},
    "stacking": {"att_context_size": [4, 3], "subsampling": "stacking"},
    "rotary positions": {"att_context_size": [12, 3], "self_attention_model": "rope"},
}
NAMES = ["audio_signal", "length", "cache_last_channel", "cache_last_time", "cache_last_channel_len"]
CACHES_NEXT = ["cache_last_channel_next", "cache_last_time_next", "cache_last_channel_next_len"]


@pytest.fixture(scope="module", params=SETTINGS)
def exported(request, tmp_path_factory):
    """A transducer and the exported graph of the encoder."""
    settings = {"streaming": True, **SETTINGS[request.param]}
    model = asr_model("transducer", encoder=settings, preprocessor={"normalize": "NA"})
    paths = model_files.export(model, tmp_path_factory.mktemp("onnx") / "model.onnx", model_files.GraphSettings(True))
    for module in model.modules():  # NeMo does not restore the modules after export
        if hasattr(module, "_rnnt_export"):
            module._rnnt_export = False
    return model, Encoder(paths[0])


def static_shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the names and known dimensions of initializers, constants, and tensors with inferred shapes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True).graph
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.name, list(attribute.t.dims)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        yield value.name, [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]


def shapes_met(path: Path, inputs: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the output shapes of all nodes in a run with ``inputs``, without fusion and constant folding."""
    model = onnx.load(str(path))
    outputs = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, value in zip([output.name for output in session.get_outputs()], session.run(None, inputs)):
        yield name, np.shape(value)


def in_windows(
    encoder: Encoder, utterances: list[np.ndarray], before: float = 0.0, forget: bool = False
) -> list[np.ndarray]:
    """Return the encodings (D, T) of each stream of a batch, computed in the windows that the metadata describes.

    ``before``: the value of the features before the start of a stream.
    """
    caches = fresh = encoder.caches(len(utterances))
    outputs: list[list[np.ndarray]] = [[] for _ in utterances]
    longest = max(x.shape[1] for x in utterances)
    for k in range(-(-longest // (encoder.factor * encoder.frames))):
        start = k * encoder.shift - encoder.before_start
        windows = np.full((len(utterances), len(utterances[0]), encoder.window), np.nan, dtype=np.float32)
        for window, x in zip(windows, utterances):
            part = x[:, max(start, 0) : max(start + encoder.window, 0)]
            window[:, : max(-start, 0)] = before
            window[:, max(-start, 0) : max(-start, 0) + part.shape[1]] = part
        lengths = np.array([min(max(x.shape[1] - start, 0), encoder.window) for x in utterances])
        x, valid, caches = encoder.step(windows, lengths, fresh if forget else caches)
        for output, one, n in zip(outputs, x, valid):
            output.append(one[:, :n])
    return [np.concatenate(output, axis=1) for output in outputs]


def test_windows_in_onnx_runtime_equal_the_whole_and_nemos_chunks_in_torch(exported):
    model, encoder = exported
    for seed, frames in enumerate([(1,), (57, 101, 8), (3, 160, 159, 96)]):
        utterances = noise_features(frames, 80, seed)
        outputs = [torch.from_numpy(x) for x in in_windows(encoder, [x.numpy() for x in utterances])]
        expected = offline(model.encoder, utterances)
        assert [x.shape for x in outputs] == [x.shape for x in expected]
        assert_close(outputs, expected, atol=1e-4, rtol=0)
        assert_close(outputs[0], streamed(model, utterances[:1])[0], atol=1e-4, rtol=0)


class InTorch(Encoder):
    """NeMo's step in torch with the same windows. It drops the same number of frames from all windows."""

    def __init__(self, model: Any, encoder: Encoder):
        self.__dict__.update(encoder.__dict__)
        self.step_of = model.encoder.cache_aware_stream_step

    def step(self, features, lengths, caches):
        given = {name: torch.from_numpy(cache) for name, cache in caches.items()}
        given |= {name: cache.transpose(0, 1) for name, cache in given.items() if cache.dim() > 1}
        with torch.no_grad():
            x, valid, *after = self.step_of(
                torch.from_numpy(features), torch.from_numpy(lengths), keep_all_outputs=False, **given
            )
        after = [cache.transpose(0, 1) if cache.dim() > 1 else cache for cache in after]
        return x.numpy(), valid.numpy(), {name: cache.numpy() for name, cache in zip(caches, after)}


def test_torch_gives_the_same_output_with_the_same_windows(exported):
    model, encoder = exported
    utterances = noise_features((3, 160, 101), 80)
    outputs = in_windows(InTorch(model, encoder), [x.numpy() for x in utterances], before=np.nan)
    assert_close([torch.from_numpy(x) for x in outputs], offline(model.encoder, utterances), atol=1e-5, rtol=0)


def test_features_before_the_start_of_a_stream_have_no_influence(exported):
    _, encoder = exported
    utterances = [x.numpy() for x in noise_features((61, 160), 80)]
    outputs = in_windows(encoder, utterances, before=np.nan)
    assert_close(outputs, in_windows(encoder, utterances, before=0.0), atol=0, rtol=0)


def test_a_stream_without_its_caches_gives_another_output(exported):
    model, encoder = exported
    utterances = noise_features((160,), 80)
    (output,) = in_windows(encoder, [x.numpy() for x in utterances], forget=True)
    assert np.abs(output - offline(model.encoder, utterances)[0].numpy()).max() > 1e-2


def test_a_stream_can_start_in_a_batch_with_a_running_stream(exported):
    model, encoder = exported
    late, early = noise_features((100, 100), 80)
    steps = encoder.shift * 2  # feature frames of the first stream before the second stream starts
    _, beside = in_windows(encoder, [early.numpy(), early.numpy()])
    caches, outputs = encoder.caches(2), []
    for k in range(2 + 2):
        windows = np.zeros((2, 80, encoder.window), dtype=np.float32)
        lengths = np.zeros(2, dtype=np.int64)
        for row, x in enumerate((late, early)):
            first = k * encoder.shift - encoder.before_start - (steps if row == 0 else 0)
            part = x.numpy()[:, max(first, 0) : max(first + encoder.window, 0)]
            windows[row, :, max(-first, 0) :][:, : part.shape[1]] = part
            lengths[row] = min(max(x.size(1) - first, 0), encoder.window)
        if k == 2:  # reuse a slot: reset its caches to the initial values
            for cache in caches.values():
                cache[0] = 0
        x, valid, caches = encoder.step(windows, lengths, caches)
        if k >= 2:
            outputs.append(x[0, :, : valid[0]])
    output = torch.from_numpy(np.concatenate(outputs, axis=1))
    assert output.size(1) > 0
    assert_close(output, offline(model.encoder, [late])[0][:, : output.size(1)], atol=1e-4, rtol=0)


def test_no_dimension_in_the_graph_is_zero(exported):
    _, encoder = exported
    zero = [found for found in static_shapes(encoder.path) if 0 in found[1]]
    for length in (encoder.window, encoder.before_start + 1, 0):
        features = np.ones((2, 80, encoder.window), dtype=np.float32)
        lengths = np.array([length, encoder.window])
        inputs = {"audio_signal": features, "length": lengths, **encoder.caches(2)}
        zero += [found for found in shapes_met(encoder.path, inputs) if 0 in found[1]]
    assert zero == []


def test_the_graph_has_the_names_of_nemo_and_metadata(exported):
    model, encoder = exported
    graph = encoder.session
    assert [value.name for value in graph.get_inputs()] == NAMES
    assert [value.name for value in graph.get_outputs()] == ["outputs", "encoded_lengths", *CACHES_NEXT]
    caches = encoder.metadata["caches"]
    assert [(cache["input"], cache["output"]) for cache in caches] == list(zip(NAMES[2:], CACHES_NEXT))
    for cache, fresh in zip(caches, model.encoder.get_initial_cache_state(3)):
        fresh = fresh.transpose(0, 1) if fresh.dim() > 1 else fresh  # the batch is the first dimension in graphs
        shape = [3 if size == "batch" else size for size in cache["shape"]]
        assert shape == list(fresh.shape) and cache["initial"] == 0 and not fresh.any()
        assert cache["dtype"] == str(fresh.dtype).removeprefix("torch.")
    config = model.encoder.streaming_cfg
    assert encoder.metadata["steps"]["nemo"]["chunk_size"] == config.chunk_size
    latency = (config.valid_out_len + config.cache_drop_size) * model.encoder.subsampling_factor * 10
    assert encoder.metadata["steps"]["latency_ms"] == latency
