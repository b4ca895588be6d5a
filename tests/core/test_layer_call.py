"""Tests that gradient checkpointing and compilation do not change what training computes."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.utils import counters
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder, layer_call
from tests.samples.encoders import features, small_encoder

AT_LEAST_2_8 = torch.__version__ >= (2, 8)  # older compilers record one more graph
NESTED = {"time_reduce_idx": [1, 2], "time_recovery_idx": [3, 3]}
CHECKPOINTED = [
    pytest.param({}, id="dropout"),
    pytest.param({"dropout": 0.0}, id="no dropout"),
    pytest.param({"block": "conformer"}, id="conformer"),
    pytest.param({"stochastic_depth_drop_prob": 0.5, "stochastic_depth_mode": "uniform"}, id="stochastic depth"),
    pytest.param({"conv_norm_type": "layer_norm", "untie_biases": False}, id="layer_norm, tied biases"),
    pytest.param({"self_attention_model": "rel_pos_local_attn", "att_context_size": [8, 8]}, id="local attention"),
    pytest.param({"self_attention_model": "rope"}, id="rope"),
]


def encoder(**settings) -> SqueezeformerEncoder:
    return small_encoder(**(NESTED | {"dropout": 0.2, "dropout_att": 0.2} | settings))


def step(model: SqueezeformerEncoder, length: int = 101, seed: int = 0) -> tuple[torch.Tensor, int]:
    """Run forward and backward with ``seed``; return the output and the bytes kept between the two passes."""
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    torch.manual_seed(seed)
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output, _ = model(features(2, length), torch.tensor([length, length - 20]))
    output.float().square().sum().backward()
    return output, sum(size for pointer, size in kept.items() if pointer not in weights)


def assert_same(model: SqueezeformerEncoder, expected: SqueezeformerEncoder, atol: float = 0.0) -> None:
    """Compare the gradients and the buffers: the statistics of batch norms and their numbers of batches."""
    for (name, p), (_, q) in zip(model.named_parameters(), expected.named_parameters()):
        # The gradient of a bias before a batch norm is zero except for rounding.
        allowed = 3 * atol if name.endswith("depthwise_conv.bias") else atol
        assert_close(p.grad, q.grad, atol=allowed, rtol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for (name, b), (_, c) in zip(model.named_buffers(), expected.named_buffers()):
        assert_close(b, c, atol=atol, rtol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("settings", CHECKPOINTED)
def test_checkpointing_keeps_less_and_gives_bit_for_bit_the_same_gradients(settings):
    plain, checkpointed = encoder(**settings).train(), encoder(gradient_checkpointing=True, **settings).train()
    # The second step starts with the batch norm statistics of the first step.
    for length, seed in ((101, 0), (64, 1)):
        expected, all_kept = step(plain, length, seed)
        output, kept = step(checkpointed, length, seed)
        assert_close(output, expected, atol=0, rtol=0)
        assert_same(checkpointed, plain)
        assert kept < 0.4 * all_kept, (kept, all_kept)


def test_the_comparison_detects_other_dropout_and_statistics_that_count_twice(monkeypatch):
    plain, checkpointed = encoder().train(), encoder(gradient_checkpointing=True).train()
    step(plain, seed=0), step(checkpointed, seed=1)
    with pytest.raises(AssertionError):
        assert_same(checkpointed, plain)
    monkeypatch.setattr(layer_call, "_StatisticsAsTheyAre", lambda layer: nullcontext())
    plain, checkpointed = encoder().train(), encoder(gradient_checkpointing=True).train()
    step(plain), step(checkpointed)
    with pytest.raises(AssertionError, match="batch_norm"):
        assert_same(checkpointed, plain)


def test_with_checkpointing_each_layer_keeps_only_its_inputs():
    def kept(n_layers: int, **settings) -> int:
        return step(encoder(n_layers=n_layers, time_reduce_idx=None, time_recovery_idx=None, **settings).train())[1]

    inputs = 2 * 26 * 16 * 4  # (B, T, D) of float32
    each = (kept(8, gradient_checkpointing=True) - kept(4, gradient_checkpointing=True)) / 4
    assert each < 2 * inputs < (kept(8) - kept(4)) / 4 / 10


def test_checkpointing_works_under_autocast_and_leaves_evaluation_alone():
    plain, checkpointed = encoder().train(), encoder(gradient_checkpointing=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, _ = step(plain)
        output, _ = step(checkpointed)
    assert_close(output, expected, atol=0, rtol=0)
    assert_same(checkpointed, plain)
    x = features(2, 60)
    assert_close(checkpointed.eval()(x)[0], plain.eval()(x)[0], atol=0, rtol=0)


def test_one_graph_serves_all_layers_at_every_rate_and_length(quick_compiler):
    plain, compiled = encoder(time_reduce_idx=[1, 2]), encoder(time_reduce_idx=[1, 2], compile=True)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        for length in (101, 64, 37, 160, 200, 311, 90, 48):
            batch = features(2, length), torch.tensor([length, length - 9])
            assert_close(compiled(*batch)[0], plain(*batch)[0], atol=1e-5, rtol=0)
        assert counters["stats"]["unique_graphs"] <= (2 if AT_LEAST_2_8 else 3)
        assert not counters["graph_break"]
        for copied in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
            assert_close(copied(*batch)[0], plain(*batch)[0], atol=1e-5, rtol=0)


def test_exporters_record_the_layers_without_compilation(quick_compiler):
    compiled, batch = encoder(compile=True), (features(2, 61), torch.tensor([61, 20]))
    expected = encoder()(*batch)[0]
    with torch.no_grad():
        traced = torch.jit.trace(compiled, batch, check_trace=False)
        program = torch.export.export(compiled, batch, strict=False)
    assert_close(traced(*batch)[0], expected, atol=1e-5, rtol=0)
    assert_close(program.module()(*batch)[0], expected, atol=1e-5, rtol=0)
    assert counters["stats"]["unique_graphs"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_training_gives_the_same_gradients(quick_compiler, checkpointing):
    settings = {"dropout": 0.0, "dropout_att": 0.0}
    plain = encoder(**settings).train()
    compiled = encoder(compile=True, gradient_checkpointing=checkpointing, **settings).train()
    for length in (101, 64, 37):
        expected, all_kept = step(plain, length)
        output, kept = step(compiled, length)
        assert_close(output, expected, atol=1e-5, rtol=0)
        assert_same(compiled, plain, atol=1e-4)  # float32 sums in another order
        assert not checkpointing or kept < 0.6 * all_kept
    assert counters["stats"]["unique_graphs"] <= 2


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_outputs():
    torch._dynamo.reset()
    compiled, plain = encoder(compile=True), encoder()
    with torch.no_grad():
        for length in (101, 64):
            batch = features(2, length), torch.tensor([length, length - 9])
            assert_close(compiled(*batch)[0], plain(*batch)[0], atol=1e-5, rtol=0)
