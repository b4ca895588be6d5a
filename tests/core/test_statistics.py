"""Tests of the running statistics of batch norms: a batch with a value that is not finite does not change them."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_squeezeformer.core.operations import normalized
from tests.samples.encoders import features, small_encoder

NAN, INF = float("nan"), float("inf")
FORMS: dict[str, dict[str, Any]] = {
    "Squeezeformer": {},
    "U-Net": {"time_reduce_idx": 1},
    "Conformer": {"block": "conformer"},
    "original": {"variant": "original"},
    "dcc": {"streaming": True, "conv_context_style": "dcc", "att_context_size": [8, 3]},
    "checkpointed": {"gradient_checkpointing": True},
    "plain attention": {"attention": "plain"},
}


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the running means, the running variances and the numbers of batches."""
    return {name: value.clone() for name, value in module.named_buffers() if "running" in name or "batches" in name}


def step(encoder: nn.Module, x: Tensor, frozen: bool = False) -> None:
    """Run the forward and the backward pass of a batch. Without gradients, PyTorch's own modules compute the batch."""
    encoder.train().requires_grad_(not frozen)
    y, _ = encoder(x, torch.tensor([x.size(2), 20]))
    if not frozen:
        y.sum().backward()


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38])
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_a_batch_that_is_not_finite_does_not_change_the_statistics(settings, value, frozen):
    encoder, x = small_encoder(**settings), features(2, 37)
    before = statistics(encoder)
    assert len(before) == 12
    x[0, 3, 10] = value
    step(encoder, x, frozen)
    torch.testing.assert_close(statistics(encoder), before, atol=0, rtol=0)
    step(encoder, features(2, 37), frozen)
    after = statistics(encoder)
    assert all(value.isfinite().all() and not torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("momentum", [0.1, 0.015, 0.0, None])
def test_a_finite_batch_updates_the_statistics_as_pytorch_does(momentum):
    norm = nn.BatchNorm1d(8, momentum=momentum)
    plain = copy.deepcopy(norm)
    for seed in range(5):
        x = 1e3 * features(3, 9, channels=8, seed=seed) + 7.0
        ours, theirs = normalized(norm, x.transpose(1, 2)).transpose(1, 2), plain(x)
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(statistics(norm), statistics(plain), atol=0, rtol=0)
    assert int(norm.num_batches_tracked) == 5


def test_an_overflow_in_half_precision_does_not_change_the_statistics():
    norm = nn.BatchNorm1d(4).half()
    before = statistics(norm)
    normalized(
        norm, torch.full((2, 5, 4), 6e4, dtype=torch.half) * torch.tensor([1.0, -1.0], dtype=torch.half).view(2, 1, 1)
    )
    torch.testing.assert_close(statistics(norm), before, atol=0, rtol=0)
    normalized(norm, torch.ones(2, 5, 4, dtype=torch.half))
    assert int(norm.num_batches_tracked) == 1 and norm.running_mean.isfinite().all()


def test_a_norm_without_statistics_and_a_norm_in_evaluation_stay_as_they_are():
    x = features(2, 5, channels=4).transpose(1, 2)
    for norm in (nn.BatchNorm1d(4, track_running_stats=False), nn.BatchNorm1d(4).eval(), nn.GroupNorm(2, 4)):
        before = statistics(norm)
        assert torch.equal(normalized(norm, x), norm(x.transpose(1, 2)).transpose(1, 2))
        torch.testing.assert_close(statistics(norm), before, atol=0, rtol=0)


def test_the_state_dict_and_the_class_of_the_norm_stay():
    encoder = small_encoder()
    assert {type(layer.conv.batch_norm) for layer in encoder.layers} == {nn.BatchNorm1d}


@pytest.fixture
def one_process() -> Iterator[None]:
    """Start a process group with a single process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_converted_norms_keep_their_statistics_too(one_process, monkeypatch):
    # SyncBatchNorm refuses a CPU. With a single process it computes as BatchNorm1d.
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", nn.BatchNorm1d.forward)
    monkeypatch.setattr(nn.SyncBatchNorm, "_check_input_dim", lambda self, x: None)
    encoder, x = nn.SyncBatchNorm.convert_sync_batchnorm(small_encoder()), features(2, 37)
    assert {type(layer.conv.batch_norm) for layer in encoder.layers} == {nn.SyncBatchNorm}
    before = statistics(encoder)
    x[0, 3, 10] = NAN
    step(encoder, x)
    torch.testing.assert_close(statistics(encoder), before, atol=0, rtol=0)
    step(encoder, features(2, 37))
    assert int(encoder.layers[0].conv.batch_norm.num_batches_tracked) == 1


def compiled_norm(backend: str, checkpointing: bool) -> None:
    """Compile a norm, and run a batch with a NaN and a finite batch."""
    norm, x = nn.BatchNorm1d(4), features(2, 37, channels=4).transpose(1, 2).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return checkpoint(normalized, norm, x, use_reentrant=False) if checkpointing else normalized(norm, x)

    run, before = torch.compile(run, backend=backend, fullgraph=True), statistics(norm)
    run(x * NAN).sum().backward()
    torch.testing.assert_close(statistics(norm), before, atol=0, rtol=0)
    run(x).sum().backward()
    assert int(norm.num_batches_tracked) == 1 and norm.running_mean.abs().min() > 0.0


def test_a_compiled_norm_keeps_its_statistics_too(quick_compiler):
    compiled_norm("aot_eager", checkpointing=True)
    assert quick_compiler["unique_graphs"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_norm_of_the_real_compiler_keeps_its_statistics_too(checkpointing):
    torch._dynamo.reset()
    compiled_norm("inductor", checkpointing)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_layer_keeps_its_statistics_too(checkpointing, quick_compiler):
    encoder, x = small_encoder(compile=True, gradient_checkpointing=checkpointing, n_layers=2), features(2, 37)
    before = statistics(encoder)
    x[0, 3, 10] = NAN
    step(encoder, x)
    torch.testing.assert_close(statistics(encoder), before, atol=0, rtol=0)
    step(encoder, features(2, 37))
    assert {int(value) for name, value in statistics(encoder).items() if "batches" in name} == {1}
    assert quick_compiler["unique_graphs"]


def test_a_transform_of_torch_func_keeps_the_statistics_too():
    encoder, x = small_encoder().train(), features(2, 37)
    weights, before = dict(encoder.named_parameters()), statistics(encoder)

    def after(x: Tensor) -> dict[str, Tensor]:
        given = statistics(encoder)  # a transform refuses changes of tensors that are not its inputs

        def loss(weights: dict[str, Tensor], given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.func.functional_call(encoder, weights | given, (x, torch.tensor([37, 20])))[0].sum(), given

        return torch.func.grad(loss, has_aux=True)(weights, given)[1]

    torch.testing.assert_close(after(x * NAN), before, atol=0, rtol=0)
    changed = after(x)
    assert all(value.isfinite().all() and not torch.equal(value, before[name]) for name, value in changed.items())
