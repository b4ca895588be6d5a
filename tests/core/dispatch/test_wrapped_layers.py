"""Tests that a layer that is not plain is called, and no fast implementation computes with its weights instead."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.dispatch import PLAIN, implementations, is_plain, only_equations
from tests.samples.encoders import features, small_encoder

ROUNDING = 2e-5  # float32 sums in another order, over four layers

LAYERS = {  # the layers whose weights some fast implementation uses
    "layers.1.feed_forward1.linear1": "linear",
    "layers.1.feed_forward1.linear2": "linear",
    "layers.1.conv.pointwise_conv1": "conv",
    "layers.1.conv.depthwise_conv": "conv",
    "layers.1.conv.pointwise_conv2": "conv",
    "layers.1.conv.batch_norm": "norm",
    "layers.1.self_attn.linear_q": "linear",
    "layers.1.self_attn.linear_k": "linear",
    "layers.1.self_attn.linear_v": "linear",
    "layers.1.self_attn.linear_pos": "linear",
    "layers.1.self_attn_scale": "scale",
    "time_reduce_layer.dw_conv": "conv",
    "time_reduce_layer.pw_conv": "conv",
    "time_recovery_layer": "linear",
    "pre_encode.conv.0": "strided",
    "pre_encode.conv.3": "conv",
    "pre_encode.out": "linear",
}


class Beside(nn.Module):
    """A layer with a second layer in parallel, as in LoRA, and the attributes that the encoder reads."""

    def __init__(self, layer: Any):
        super().__init__()
        self.layer, self.beside = layer, copy.deepcopy(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + bent(self.beside(x))

    def __getattr__(self, name: str) -> Any:
        if name in ("stride", "weight", "in_features", "in_channels"):
            return getattr(self.layer, name)
        return super().__getattr__(name)


class Coded(Tensor):
    """A weight that represents other values than it stores, as quantized weights do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def decoded(x: Any) -> Any:
            return bent(x.as_subclass(Tensor)) if isinstance(x, Coded) else x

        if func in (torch.nn.functional.linear, torch.conv1d, torch.conv2d, torch.batch_norm):
            return func(*map(decoded, args), **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


class Bent(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return bent(weight)


def bent(x: Tensor) -> Tensor:
    """Return a nonlinear function of ``x``, which no following norm can undo."""
    return torch.where(x > 0.0, 0.5 * x, x)


def with_hook(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, output: bent(output))
    return layer


def with_pre_hook(layer: nn.Module) -> nn.Module:
    layer.register_forward_pre_hook(lambda module, args: (bent(args[0]),))
    return layer


def parametrized(layer: nn.Module) -> nn.Module:
    name = "scale" if hasattr(layer, "scale") else "weight"
    parametrize.register_parametrization(layer, name, Bent())
    return layer


def pruned(layer: nn.Module) -> nn.Module:
    name = "scale" if hasattr(layer, "scale") else "weight"
    return prune.random_unstructured(layer, name, amount=0.5)


def with_coded_weight(layer: Any) -> nn.Module:
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Coded), requires_grad=layer.weight.requires_grad)
    assert type(layer.weight) is Coded
    return layer


def of_a_subclass(layer: Any) -> nn.Module:
    kind = type(layer)
    twice = type("Twice", (kind,), {"forward": lambda self, x: bent(kind.forward(self, x))})
    other = copy.deepcopy(layer)
    other.__class__ = twice
    return other


def with_its_own_forward(layer: Any) -> nn.Module:
    forward = layer.forward
    layer.forward = lambda x: bent(forward(x))
    return layer


WRAPPERS: dict[str, Callable[[Any], nn.Module]] = {
    "hook": with_hook,
    "pre-hook": with_pre_hook,
    "parametrization": parametrized,
    "pruning": pruned,
    "LoRA": Beside,
    "weight of a subclass": with_coded_weight,
    "subclass": of_a_subclass,
    "forward of its own": with_its_own_forward,
}


def wrapped(encoder: SqueezeformerEncoder, path: str, wrapper: str) -> SqueezeformerEncoder:
    parent, _, name = path.rpartition(".")
    owner: Any = encoder.get_submodule(parent)
    layer = WRAPPERS[wrapper](getattr(owner, name))
    if isinstance(owner, (nn.ModuleList, nn.Sequential)):
        owner[int(name)] = layer
    else:
        setattr(owner, name, layer)
    return encoder


def evaluated(encoder: SqueezeformerEncoder) -> list[Tensor]:
    with torch.no_grad():
        return [encoder.eval()(features(2, 61), torch.tensor([61, 44]))[0]]


def trained(encoder: SqueezeformerEncoder) -> list[Tensor]:
    x = features(2, 61).requires_grad_()
    y, _ = encoder.train()(x, torch.tensor([61, 44]))
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad]


def streamed(encoder: SqueezeformerEncoder) -> list[Tensor]:
    state = encoder.eval().init_state(2)
    with torch.no_grad():
        return [encoder(chunk, None, state)[0] for chunk in features(2, 48).split(16, dim=2)]


STREAM = {"streaming": True, "att_context_size": [32, 3]}
MODES: dict[str, tuple[Callable[[SqueezeformerEncoder], list[Tensor]], dict[str, Any]]] = {
    "evaluated": (evaluated, {}),
    "trained": (trained, {}),
    "streamed": (streamed, STREAM),
}


def small(settings: dict[str, Any]) -> SqueezeformerEncoder:
    return small_encoder(n_heads=2, d_model=64, time_reduce_idx=1, conv_norm_type="batch_norm", **settings)


def cases() -> list[Any]:
    """Return each layer with each wrapper. The fast tests have a third of the wrappers of each layer."""
    without = {(wrapper, kind) for wrapper in ("LoRA", "weight of a subclass") for kind in ("scale", "norm")}
    without.add(("LoRA", "strided"))  # the subsampling finds its convolutions by their strides
    return [
        pytest.param(path, wrapper, marks=[] if (place + number) % 3 == 0 else pytest.mark.slow)
        for place, (path, kind) in enumerate(LAYERS.items())
        for number, wrapper in enumerate(WRAPPERS)
        if (wrapper, kind) not in without
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path, wrapper", cases())
def test_a_wrapped_layer_is_called(path, wrapper, mode):
    run, settings = MODES[mode]
    encoder = wrapped(small(settings), path, wrapper)
    with only_equations():
        expected = run(wrapped(small(settings), path, wrapper))
    for made, wanted in zip(run(encoder), expected, strict=True):
        assert_close(made, wanted, atol=ROUNDING * float(wanted.abs().max()), rtol=0)
    unwrapped = run(small(settings))
    assert (unwrapped[0] - expected[0]).abs().max() > 5 * ROUNDING * expected[
        0
    ].abs().max()  # the wrapper changes the output


@pytest.mark.parametrize("settings", [{}, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("path, wrapper", cases())
def test_an_optimized_encoder_keeps_its_wrapped_layers(path, wrapper, settings):
    expected = evaluated(wrapped(small(settings), path, wrapper))
    optimized = wrapped(small(settings), path, wrapper).optimize_for_inference()
    assert_close(evaluated(optimized), expected, atol=ROUNDING, rtol=1e-4)


def test_quantized_layers_are_called():
    linears = {name for name, module in small({}).named_modules() if isinstance(module, nn.Linear)}
    for settings, run in (({}, evaluated), (STREAM, streamed)):
        quantized = torch.ao.quantization.quantize_dynamic(small(settings).eval(), linears)
        assert not any(is_plain(quantized.get_submodule(name)) for name in linears)
        with only_equations():
            expected = run(quantized)
        for made, wanted in zip(run(quantized), expected, strict=True):
            assert_close(made, wanted, atol=0.1, rtol=0)  # the quantization scales depend on the input frames


def test_quantized_layers_are_called_without_no_grad():
    quantized = torch.ao.quantization.quantize_dynamic(small({}).eval(), {nn.Linear})
    assert quantized(features(1, 60))[0].isfinite().all()


def test_a_call_with_names_gives_the_result_of_a_call_without_names():
    layer = small({}).train().layers[0].feed_forward1
    x = torch.randn(1, 3, layer.linear1.in_features)
    assert torch.equal(layer(x=x), layer(x))


@pytest.mark.parametrize(
    "mode, settings, expected",
    [
        ("evaluated", {}, {"subsample_in_pieces"}),
        ("trained", {}, {"train_feed_forward", "train_convolution", "subsample_in_pieces"}),
        (
            "trained",
            {"block": "conformer", "dropout": 0.1},
            {"train_feed_forward", "train_dropout", "subsample_in_pieces"},
        ),
        ("streamed", {}, {"absorbed_attention"}),
    ],
)
def test_without_wrapped_layers_every_implementation_is_used(mode, settings, expected, monkeypatch):
    """Without this condition, the tests above would not test anything."""
    used = set()
    for implementation in implementations():

        def counted(*args: Any, compute: Any = implementation.compute, **named: Any) -> Any:
            used.add(compute.__name__)
            return compute(*args, **named)

        monkeypatch.setattr(implementation, "compute", counted)
    run, common = MODES[mode]
    run(small(common | settings))
    assert used == expected | {"pointwise_as_product"}


def test_is_plain_is_true_for_plain_modules_and_false_for_wrapped_modules():
    for layer in (nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm1d(4)):
        assert type(layer) in PLAIN and is_plain(layer)
        for wrap in WRAPPERS.values():
            assert not is_plain(wrap(copy.deepcopy(layer)))
    assert not is_plain(None) and not is_plain(nn.ReLU())
