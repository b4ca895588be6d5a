"""Tests of second derivatives and of torch.func: the fast implementations for training give the exact derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradgradcheck
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.attention.kernel import Operands
from nemo_squeezeformer.core.cpu import convolution, dropout, feed_forward
from nemo_squeezeformer.core.cpu.convolution import swish_pointwise
from nemo_squeezeformer.core.cpu.feed_forward import lean_feed_forward
from nemo_squeezeformer.core.dropout import Dropout
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels import fused_training, recomputed_attention, recomputed_batch
from nemo_squeezeformer.core.kernels.fused_training import FusedTraining
from nemo_squeezeformer.core.kernels.recomputed_attention import RecomputedAttention
from nemo_squeezeformer.core.kernels.recomputed_batch import RecomputedBatch
from tests.samples.encoders import features, small_encoder

STEP = 1e-5  # of central differences in float64, whose error is near the square of the step
WIDTH = 4
RATES = [0.0, 0.3]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "U-Net": {"time_reduce_idx": 1},
    "conformer": {"block": "conformer"},
    "abs_pos": {"self_attention_model": "abs_pos"},
    "rope": {"self_attention_model": "rope"},
    "no biases": {"use_bias": False},
    "a limited context": {"att_context_size": [4, 3]},
    "checkpointed": {"gradient_checkpointing": True},
    "dropout": {"dropout": 0.2, "dropout_att": 0.2},
}


def seeded(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``compute`` with the same dropout in each call."""

    def computed(*given: Tensor) -> Tensor:
        torch.manual_seed(3)
        return compute(*given)

    return computed


def leaves(*sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(sizes))
    return [torch.randn(size, generator=generator, dtype=torch.double).requires_grad_() for size in sizes]


def differentiable_twice(compute: Callable[..., Tensor], inputs: list[Tensor]) -> bool:
    """Compare the second derivatives with finite differences.

    The output passes through tanh, because the gradient of a sum of outputs does not depend on the outputs.
    """
    return gradgradcheck(lambda *given: seeded(compute)(*given).tanh(), inputs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rate", RATES)
def test_a_feed_forward_can_be_differentiated_twice(rate, bias):
    def compute(x: Tensor, expand: Tensor, project: Tensor, *biases: Tensor) -> Tensor:
        bias1, bias2 = biases or (None, None)
        return feed_forward._feed_forward(x, expand, bias1, project, bias2, rate)

    sizes: list[tuple[int, ...]] = [(2, 3, WIDTH), (6, WIDTH), (WIDTH, 6)]
    assert differentiable_twice(compute, leaves(*sizes, *([(6,), (WIDTH,)] if bias else [])))


@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_module_can_be_differentiated_twice(bias):
    def depthwise(x: Tensor, weight: Tensor, *biases: Tensor) -> Tensor:
        return convolution._swish_depthwise(x, weight, *(biases or (None,)), [5, 3], 2, 0)

    def pointwise(x: Tensor, weight: Tensor, *biases: Tensor) -> Tensor:
        return convolution._swish_linear(x, weight, *(biases or (None,)))

    biases: list[tuple[int, ...]] = [(WIDTH,)] if bias else []
    assert differentiable_twice(depthwise, leaves((2, 5, WIDTH), (WIDTH, 1, 3), *biases))
    assert differentiable_twice(pointwise, leaves((2, 5, 3), (WIDTH, 3), *biases))


def test_dropout_can_be_differentiated_twice():
    assert differentiable_twice(Dropout(0.3), leaves((2, 3, WIDTH)))


@pytest.mark.parametrize("context", [Context(), Context(2, 1), Context(2, 1, 2)], ids=["all", "limited", "chunks"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("relative", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_recomputed_attention_can_be_differentiated_twice(relative, rate, context, monkeypatch):
    monkeypatch.setattr(recomputed_attention, "BLOCK", 2)
    t = 4
    frames = Frames.of(torch.tensor([t, t - 1]), t, context)

    def compute(*operands: Tensor) -> Tensor:
        return RecomputedAttention()(Operands(*operands), frames, nn.Dropout(rate))

    sizes = [(2, 2, t, 2)] * 3 + [(2, 2, t, 2), (1, 2, 2 * t - 1, 2)] * relative
    assert differentiable_twice(compute, leaves(*sizes))


@pytest.mark.parametrize("rate", RATES)
def test_recomputed_attention_of_a_whole_batch_can_be_differentiated_twice(rate):
    frames = Frames.of(torch.tensor([4, 3]), 4, Context(1, 1))

    def compute(*operands: Tensor) -> Tensor:
        torch.manual_seed(1)
        return RecomputedBatch()(Operands(*operands), frames, nn.Dropout(rate))

    assert differentiable_twice(compute, leaves(*[(2, 2, 4, 2)] * 4, (1, 2, 7, 2)))


@pytest.mark.parametrize("lengths", [[4, 3], [4, 4], [4, 0]], ids=str)
def test_fused_attention_can_be_differentiated_twice(lengths):
    frames = Frames.of(torch.tensor(lengths), 4, Context())

    def compute(*operands: Tensor) -> Tensor:
        return FusedTraining()(Operands(*operands), frames, nn.Dropout(0.0))

    assert differentiable_twice(compute, leaves(*[(2, 2, 4, 2)] * 3))


def test_an_input_that_depends_on_a_weight_keeps_the_partial_derivatives():
    """The second of two layers with shared weights gets an input that depends on these weights."""
    conv = nn.Conv1d(WIDTH, WIDTH, 1).double()
    (x,) = leaves((1, 3, WIDTH))

    def loss() -> Tensor:
        return (swish_pointwise(conv, swish_pointwise(conv, x)) ** 2).sum()

    (plain,) = torch.autograd.grad(loss(), [conv.weight])
    (again,) = torch.autograd.grad(loss(), [conv.weight], create_graph=True)
    assert_close(again, plain)


def test_frozen_weights_get_no_gradient_with_create_graph():
    expand, project = nn.Linear(WIDTH, 6).double(), nn.Linear(6, WIDTH).double()
    expand.requires_grad_(False)
    (x,) = leaves((1, 3, WIDTH))
    grads = torch.autograd.grad(
        lean_feed_forward(x, expand, project, 0.0).sum(), [x, project.weight], create_graph=True
    )
    assert all(grad.requires_grad for grad in grads)


def test_every_function_with_its_own_backward_pass_is_tested_here():
    import nemo_squeezeformer.core

    tested = {
        feed_forward._FeedForward,
        convolution._SwishDepthwise,
        convolution._SwishLinear,
        dropout._Dropout,
        recomputed_attention._Attention,
        recomputed_batch._Attention,
        fused_training._FusedAttention,
    }
    package = nemo_squeezeformer.core.__name__
    found = {kind for kind in torch.autograd.Function.__subclasses__() if kind.__module__.startswith(package)}
    assert found == tested


def small(**settings: Any) -> SqueezeformerEncoder:
    return small_encoder(n_heads=2, n_layers=3, **settings).double()


def loss_of(encoder: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    torch.manual_seed(7)
    return (encoder(x, lengths)[0].tanh() ** 2).sum()


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_hessian_of_an_encoder_equals_finite_differences(settings):
    encoder, x, lengths = small(**settings).train(), features(2, 37).double(), torch.tensor([37, 20])
    parameters = list(encoder.layers[0].parameters())
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.double) for p in parameters]

    def gradient() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss_of(encoder, x, lengths), parameters)

    def move(step: float) -> None:
        with torch.no_grad():
            for parameter, along in zip(parameters, direction):
                parameter.add_(along, alpha=step)

    grads = torch.autograd.grad(loss_of(encoder, x, lengths), parameters, create_graph=True)
    products = torch.autograd.grad(grads, parameters, direction)
    move(STEP)
    after = gradient()
    move(-2 * STEP)
    expected = [(one - other) / (2 * STEP) for one, other in zip(after, gradient())]
    norm = torch.stack([one.norm() for one in expected]).norm()
    assert norm > 1.0
    for ours, theirs in zip(products, expected):
        assert float((ours - theirs).norm()) < 1e-5 * float(norm)


def test_a_backward_pass_without_create_graph_does_not_compute_the_equations_again(monkeypatch):
    def refuse(*given: Any) -> None:
        raise AssertionError

    for module in (convolution, feed_forward, recomputed_attention):
        monkeypatch.setattr(module, "gradients", refuse)
    encoder, x, lengths = small().train(), features(2, 37).double(), torch.tensor([37, 20])
    loss_of(encoder, x, lengths).backward()
    with pytest.raises(AssertionError):
        torch.autograd.grad(loss_of(encoder, x, lengths), list(encoder.parameters()), create_graph=True)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_functional_gradients_equal_the_gradients_of_autograd(training, settings):
    if training and "dropout" in settings:
        pytest.skip("a transform draws other dropout masks")
    encoder = small(**settings, conv_norm_type="layer_norm").train(training)
    x, lengths, parameters = features(2, 37).double(), torch.tensor([37, 20]), dict(encoder.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = torch.func.functional_call(encoder, parameters, (x[None], lengths[None]))
        return (y.tanh() ** 2).sum()

    def each(i: int) -> dict[str, Tensor]:
        grads = torch.autograd.grad(loss(parameters, x[i], lengths[i]), list(parameters.values()))
        return dict(zip(parameters, grads))

    assert_close(torch.func.grad(loss)(parameters, x[0], lengths[0]), each(0))
    by_utterance = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, lengths)
    assert_close({name: grads[1] for name, grads in by_utterance.items()}, each(1))


def test_forward_mode_equals_backward_mode():
    encoder, x, lengths = small().eval(), features(1, 37).double(), torch.tensor([37])
    along = features(1, 37, seed=1).double()
    (grad,) = torch.autograd.grad(loss_of(encoder, x.requires_grad_(), lengths), x)
    _, derivative = torch.func.jvp(lambda x: loss_of(encoder, x, lengths), (x.detach(),), (along,))
    assert_close(derivative.detach(), (grad * along).sum())


def test_several_gradients_at_once_equal_the_gradients_in_turn():
    encoder, x, lengths = small().train(), features(2, 37).double(), torch.tensor([37, 20])
    y, parameters = encoder(x, lengths)[0], list(encoder.parameters())
    upstream = torch.eye(2, y.numel(), dtype=torch.double).view(2, *y.shape)

    def grads(upstream: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, parameters, upstream, retain_graph=True)

    together = torch.func.vmap(grads)(upstream)
    for i in range(2):
        assert_close(tuple(grad[i] for grad in together), grads(upstream[i]))
