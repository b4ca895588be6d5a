"""Tests of the fast implementations of training on a CPU: outputs and gradients equal the reference implementation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.cpu import random_masks
from nemo_squeezeformer.core.cpu.feed_forward import lean_feed_forward
from nemo_squeezeformer.core.dispatch import only_equations
from nemo_squeezeformer.core.dropout import Dropout
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels import recomputed_attention, sdpa
from nemo_squeezeformer.core.kernels.recomputed_attention import RecomputedAttention
from nemo_squeezeformer.core.kernels.sdpa import SDPA
from tests.samples.encoders import features, small_encoder

ROUNDING = 1e-9  # relative to the largest entry, in float64

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "U-Net": {"time_reduce_idx": 1},
    "conformer": {"block": "conformer", "time_reduce_idx": 1},
    "mf_cf_glu": {"block": "mf_cf_glu", "time_reduce_idx": 1},
    "abs_pos": {"self_attention_model": "abs_pos"},
    "rope": {"self_attention_model": "rope", "time_reduce_idx": 1},
    "rope in a window": {"self_attention_model": "rope", "att_context_size": [9, 5]},
    "no biases": {"use_bias": False},
    "tied position biases": {"untie_biases": False},
    "a limited context": {"att_context_size": [9, 5], "time_reduce_idx": 1},
    "chunks": {"att_context_style": "chunked_limited", "att_context_size": [8, 3], "conv_context_size": "causal"},
    "dcc": {"att_context_style": "chunked_limited", "att_context_size": [8, 3], "conv_context_style": "dcc"},
    "layer_norm": {"conv_norm_type": "layer_norm"},
    "checkpointed": {"gradient_checkpointing": True},
}


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features and lengths: odd and even, of one frame, with and without padding, and an empty utterance."""
    for t in (5, 61, 160):
        yield features(3, t, seed=t), torch.tensor([t, max(t // 2, 1), max(t - 9, 1)])
    yield features(2, 97), torch.tensor([97, 97])
    yield features(3, 128), torch.tensor([128, 128, 100])  # whole blocks for the gradient of the depthwise convolution
    yield features(2, 64), torch.tensor([64, 0])


def trained(
    encoder: nn.Module, x: Tensor, lengths: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run forward and backward; return the valid output frames and the gradients of the input and the parameters."""
    x = x.clone().requires_grad_()
    encoder.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        y, lengths = encoder(x, lengths)
    valid = torch.arange(y.size(2), device=y.device) < lengths[:, None]
    y = y.to(x.dtype).masked_fill(~valid[:, None], 0.0)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)).sum().backward()
    grads = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return y.detach(), {"input": x.grad} | grads


def as_written(encoder: SqueezeformerEncoder) -> SqueezeformerEncoder:
    encoder = copy.deepcopy(encoder)
    for layer in encoder.layers:
        layer.self_attn.kernel = PlainKernel()
    return encoder


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], rounding: float = ROUNDING) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(float(grad.abs().max()) for grad in theirs.values())
    for name, grad in theirs.items():
        # The gradient of a bias before a batch norm is only rounding, so the scale comes from the other gradients.
        scale = max(float(grad.abs().max()), 1e-2 * largest)
        assert float((ours[name] - grad).abs().max()) <= rounding * scale, name


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_an_encoder_trains_like_the_reference_implementation(settings, monkeypatch):
    monkeypatch.setattr(recomputed_attention, "BLOCK", 7)
    encoder = small_encoder(n_heads=2, **settings).double().train()
    written = as_written(encoder)
    for x, lengths in batches():
        x = x.double()
        ours = trained(encoder, x, lengths)
        with only_equations():
            theirs = trained(written, x, lengths)
        assert_close(ours[0], theirs[0], atol=ROUNDING, rtol=ROUNDING)
        close(ours[1], theirs[1])
    for ours, theirs in zip(encoder.buffers(), written.buffers()):
        assert_close(ours, theirs, atol=ROUNDING, rtol=ROUNDING)  # running statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_costs_no_more_than_in_the_reference_implementation(dtype):
    """Sum over five encoders: with a single encoder, either implementation can lose a third more by chance."""
    losses = {"ours": 0.0, "plain": 0.0}
    for seed in range(5):
        encoder = small_encoder(seed, n_heads=2, time_reduce_idx=1).train()
        written, x, lengths = as_written(encoder), features(3, 160, seed=seed), torch.tensor([160, 80, 151])
        runs = {"ours": trained(encoder, x, lengths, dtype)}
        with only_equations():
            runs["plain"] = trained(written, x, lengths, dtype)
            exact = trained(written.double(), x.double(), lengths)
        for name, run in runs.items():
            pairs = [(run[0], exact[0]), *((run[1][of], exact[1][of]) for of in exact[1])]
            # A bias before a softmax or a batch norm has no effect, and its gradient is only rounding.
            losses[name] += sum(float((a - b).norm() / b.norm()) for a, b in pairs if b.norm() > 1e-6)
    assert 0.0 < losses["ours"] < 1.2 * losses["plain"]


@pytest.mark.parametrize("context", [Context(), Context(6, 3), Context(8, 3, 4)], ids=["all", "limited", "chunks"])
@pytest.mark.parametrize("t", [1, 2, 17, 40])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_recomputed_attention_has_the_gradients_of_the_reference_implementation(context, t, rate, monkeypatch):
    """In float64. With dropout there is a single block, and the equation drops the same attention weights."""
    monkeypatch.setattr(recomputed_attention, "BLOCK", 64 if rate else 7)
    frames = Frames.of(torch.tensor([t, max(t - 5, 1)]), t, context)
    given = [torch.randn(2, 3, t, 5, dtype=torch.double, requires_grad=True) for _ in range(4)]
    p = torch.randn(1, 3, 2 * t - 1, 5, dtype=torch.double, requires_grad=True)
    content, k, v, position = given
    torch.manual_seed(5)
    ours = RecomputedAttention()(Operands(content, k, v, position, p), frames, nn.Dropout(rate))
    torch.manual_seed(5)
    theirs = PlainKernel()(Operands(content, k, v, position, p), frames, Kept(frames, t, rate))
    assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, [*given, p], upstream), torch.autograd.grad(theirs, [*given, p], upstream)
    ):
        assert_close(a, b)
    if t > 6 and rate:  # a control: dropping other weights gives another result
        other = RecomputedAttention()(Operands(content, k, v, position, p), frames, nn.Dropout(rate))
        assert not torch.allclose(other, theirs)


class Kept(nn.Dropout):
    """Dropout of attention weights (B, H, T, S) with the same random numbers as the recomputed attention."""

    def __init__(self, frames: Frames, t: int, rate: float):
        super().__init__(rate)
        self.frames, self.t = frames, t

    def forward(self, x: Tensor) -> Tensor:
        if not self.p:
            return x
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        mask = torch.zeros_like(x)
        for block in recomputed_attention.Blocks(self.frames.lengths.tolist(), self.t, self.frames.context):
            of_block = mask[block.utterance, :, block.first : block.stop, block.start : block.end]
            of_block.copy_(random_masks.kept(of_block, self.p, generator))
        return x * mask / random_masks.kept_rate(self.p)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("bias", [True, False])
def test_a_feed_forward_has_the_gradients_of_the_reference_implementation(rate, bias):
    expand, project = nn.Linear(6, 24, bias=bias).double(), nn.Linear(24, 6, bias=bias).double()
    x = torch.randn(2, 5, 6, dtype=torch.double, requires_grad=True)
    inputs = [x, *expand.parameters(), *project.parameters()]
    torch.manual_seed(3)
    ours = lean_feed_forward(x, expand, project, rate)
    torch.manual_seed(3)
    inner = nn.functional.silu(expand(x))
    theirs = project(inner * random_masks.kept(inner, rate) / random_masks.kept_rate(rate)) if rate else project(inner)
    assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream)):
        assert_close(a, b)


def test_frozen_weights_get_no_gradient_and_other_gradients_do_not_change():
    encoder = small_encoder(n_heads=2).train()
    x, lengths = features(2, 61), torch.tensor([61, 40])
    _, expected = trained(encoder, x, lengths)
    frozen = [name for name, _ in encoder.named_parameters() if "linear1" in name or "depthwise" in name]
    for name in frozen:
        encoder.get_parameter(name).requires_grad_(False)
    _, grads = trained(encoder, x, lengths)
    assert frozen and not set(frozen) & grads.keys()
    close(grads, {name: grad for name, grad in expected.items() if name not in frozen}, rounding=1e-5)


def test_a_module_that_is_not_plain_is_called():
    calls: list[Any] = []
    feed_forward = small_encoder(n_heads=2).train().layers[0].feed_forward1
    feed_forward.linear1.register_forward_hook(lambda *given: calls.append(given))
    feed_forward(torch.randn(1, 3, feed_forward.linear1.in_features))
    assert len(calls) == 1


def test_a_rate_that_rounds_to_one_does_not_divide_by_zero():
    x = torch.ones(4, 8, requires_grad=True)
    assert Dropout(0.999999)(x).isfinite().all()
    feed_forward = small_encoder(n_heads=2, dropout=0.999999).train().layers[0].feed_forward1
    assert feed_forward(torch.randn(1, 3, feed_forward.linear1.in_features)).isfinite().all()


def test_autocast_does_not_change_an_encoder_in_float64():
    encoder = small_encoder(n_heads=2).double().train()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = encoder(features(2, 40).double(), torch.tensor([40, 30]))
    y.sum().backward()
    assert y.dtype == torch.float64 and encoder.layers[0].self_attn.linear_q.weight.grad.isfinite().all()


@pytest.mark.parametrize("t, context", [(40, [-1, -1]), (2000, [64, 64])], ids=["utterances", "blocks"])
def test_attention_without_gradients_has_dropout_in_training_mode(t, context):
    """Monte-Carlo dropout: several passes through the network in training mode, without gradients."""
    settings = {"self_attention_model": "rope", "dropout": 0.0, "dropout_att": 0.5, "att_context_size": context}
    encoder = small_encoder(n_heads=2, conv_norm_type="layer_norm", **settings).train()
    x, lengths = features(2, t), torch.tensor([t, t - 8])
    with torch.no_grad():
        first, second = (encoder(x, lengths)[0] for _ in range(2))
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expected_share_and_scales_it_up(rate):
    dropout, x = Dropout(rate), torch.ones(1000, 301, requires_grad=True)
    y = dropout(x)
    kept = y != 0
    assert abs(float(kept.float().mean()) - (1 - rate)) < 0.004  # more than four standard deviations
    assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - rate)), rtol=1e-3, atol=0)
    # Neighbors share a random number, but they must be independent.
    halves = (kept[:, ::2][:, :150] & kept[:, 1::2]).float().mean()
    assert abs(float(halves) - (1 - rate) ** 2) < 0.006
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert_close(grad, y.detach())
    assert torch.equal(dropout.eval()(x), x)


def test_a_seed_gives_the_same_training_again():
    encoder = small_encoder(n_heads=2, dropout=0.2, dropout_att=0.2).train()
    x, lengths = features(2, 61), torch.tensor([61, 40])
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(trained(encoder, x, lengths)[0])
    assert torch.equal(runs[0], runs[1]) and not torch.allclose(runs[0], runs[2])


def test_training_keeps_less_than_six_tenths_of_the_memory_of_the_reference_implementation():
    encoder = small_encoder(n_heads=2, d_model=32, dropout=0.1).train()
    x, lengths = features(4, 400), torch.tensor([400, 300, 250, 200])

    def kept(encoder: nn.Module) -> int:
        storages: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            y = encoder(x, lengths)[0]
        assert y.requires_grad
        return sum(storages.values())

    lean = kept(encoder)
    with only_equations():
        assert lean < 0.6 * kept(as_written(encoder))


@pytest.mark.parametrize("t", [1, 17])
def test_padded_heads_of_fused_kernels_have_the_gradients_of_the_reference_implementation(t, monkeypatch):
    monkeypatch.setattr(sdpa, "MULTIPLES", {"cpu": 8})
    frames = Frames.of(torch.tensor([t, max(t - 5, 1)]), t, Context(6, 3))
    given = [torch.randn(2, 3, t, 49, dtype=torch.double, requires_grad=True) for _ in range(4)]
    p = torch.randn(1, 3, 2 * t - 1, 49, dtype=torch.double, requires_grad=True)
    content, k, v, position = given
    ours = SDPA()(Operands(content, k, v, position, p), frames, nn.Dropout(0.0))
    theirs = PlainKernel()(Operands(content, k, v, position, p), frames, nn.Dropout(0.0))
    assert ours.shape == theirs.shape
    assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, [*given, p], upstream), torch.autograd.grad(theirs, [*given, p], upstream)
    ):
        assert_close(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: it compares kernels that only GPUs have")
@pytest.mark.parametrize("attention", ["auto", "blocks", "sdpa"])
def test_on_a_gpu_an_encoder_trains_as_on_a_cpu(attention):
    encoder = small_encoder(n_heads=2, d_model=98, time_reduce_idx=1, attention=attention).train()
    x, lengths = features(3, 160), torch.tensor([160, 80, 151])
    expected, expected_grads = trained(as_written(encoder), x, lengths)
    y, grads = trained(encoder.cuda(), x.cuda(), lengths.cuda())
    assert_close(y.cpu(), expected, atol=1e-3, rtol=1e-3)  # TF32 may be on
    close({name: grad.cpu() for name, grad in grads.items()}, expected_grads, rounding=1e-2)
