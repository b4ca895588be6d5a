"""Tests of absorbed attention: it equals plain attention, and it is used if it is cheaper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from nemo_squeezeformer.core.attention import RelPositionAttention, position_biases
from nemo_squeezeformer.core.dispatch import implementations, only_equations
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels.absorbed_attention import absorbed_attention
from tests.samples.encoders import enliven, features, small_encoder

ROUNDING = 1e-5  # float32 sums over D and S in another order


def attention(d_model: int = 16, heads: int = 4, **settings: Any) -> RelPositionAttention:
    torch.manual_seed(0)
    module = RelPositionAttention(d_model, heads, **settings).eval()
    enliven(module)
    return module


def inputs(b: int, t: int, s: int, d: int = 16) -> tuple[Tensor, Tensor, Frames, Tensor]:
    """Return queries, keys, frames and positions.

    In the first row only two queries are valid; a third query sees no key. In the last row, half of the past is valid.
    """
    generator = torch.Generator().manual_seed(t * 100 + s)
    x, context, positions = (torch.randn(size, generator=generator) for size in ((b, t, d), (b, s, d), (s + t - 1, d)))
    lengths, cached = torch.full((b,), t), torch.full((b,), s - t)
    lengths[0], cached[-1] = min(t, 2), (s - t) // 2
    return x, context, Frames.of_stream(lengths, t, Context(s // 2, 1), cached, s - t, t), positions


def plain_attention(module: RelPositionAttention, *args: Any) -> Tensor:
    with only_equations():
        return module.attended(*args)


(ABSORBED,) = (found for found in implementations() if found.compute is absorbed_attention)


def absorbs(*args: Any) -> bool:
    return ABSORBED.applies(args, {})


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("use_bias", [True, False])
def test_absorbed_attention_equals_plain_attention_for_any_number_of_queries_and_keys(use_bias, heads):
    module = attention(heads=heads, use_bias=use_bias)
    for t in (1, 2, 3, 6, 13):
        for s in (t, t + 1, t + 8, t + 77):
            for b in (1, 3):
                given = inputs(b, t, s)
                expected = plain_attention(module, *given)
                assert s == 1 or expected.std() > 0.1
                assert_close(absorbed_attention(module, *given), expected, atol=ROUNDING, rtol=0)


def test_absorbed_attention_equals_plain_attention_with_shared_position_biases():
    shared = position_biases(16, 4)
    for module in (attention(biases=shared), attention(biases=shared)):
        given = inputs(2, 3, 20)
        assert module.pos_bias_u is shared[0] and shared[0].abs().max() > 0
        assert_close(absorbed_attention(module, *given), plain_attention(module, *given), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    "without", ["pos_bias_u", "pos_bias_v", "linear_v.bias", "linear_k.weight", "linear_pos.weight"]
)
def test_the_comparison_detects_a_missing_weight(without):
    module, given = attention(), inputs(2, 3, 20)
    expected = plain_attention(module, *given)
    module.get_parameter(without).data.zero_()
    assert (absorbed_attention(module, *given) - expected).abs().max() > 0.01


def test_a_query_that_sees_no_key_gets_zeros_even_if_values_have_a_bias():
    x, context, frames, positions = inputs(2, 3, 20)
    attended = absorbed_attention(attention(), x, context, frames, positions)
    assert attended[0, :, 2].abs().max() == 0 and attended[1, :, -1].abs().min() > 0


def test_gradients_in_evaluation_mode_are_the_same():
    gradients = []
    for form in (plain_attention, absorbed_attention):
        module, (x, context, frames, positions) = attention(), inputs(2, 3, 20)
        x, context = x.requires_grad_(), context.requires_grad_()
        form(module, x, context, frames, positions).square().sum().backward()
        weights = [
            p.grad for name, p in module.named_parameters() if name not in ("linear_k.bias",) and "out" not in name
        ]
        gradients.append([x.grad, context.grad, *weights])
    assert len(gradients[0]) == 10
    for absorbed, expected in zip(*gradients, strict=True):
        assert_close(absorbed, expected, atol=1e-4, rtol=1e-4)  # the gradients are of magnitude 10


def operations(form: Any, *args: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        form(*args)
    return counter.get_total_flops()


@pytest.mark.parametrize("d, heads", [(48, 4), (48, 2), (64, 8), (32, 1)])
def test_absorbed_attention_is_used_exactly_if_it_takes_fewer_operations(d, heads):
    module, used = attention(d, heads), []
    for b in (1, 8):
        for t in (1, 2, 6, 13, 26, 60):
            for s in (t, t + 5, t + 20, t + 78, t + 156):
                given = inputs(b, t, s, d)
                fewer = operations(absorbed_attention, module, *given) < operations(plain_attention, module, *given)
                assert absorbs(module, *given[:2]) == fewer, (b, t, s)
                used.append(fewer)
    assert len(set(used)) == 2


def test_arguments_can_be_passed_by_name(calls):
    x, context, frames, positions = inputs(1, 2, 80)
    by_name = attention().attended(x, context, frames=frames, positions=positions)
    assert calls == [2]
    assert_close(by_name, plain_attention(attention(), x, context, frames, positions), atol=ROUNDING, rtol=0)


class Wrapped(nn.Module):
    """A linear layer with a second layer in parallel, as in LoRA."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear, self.beside = linear, nn.Linear(linear.in_features, linear.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.beside(x)


def test_absorbed_attention_is_not_used_in_training_nor_with_layers_that_are_not_plain():
    x, context = torch.randn(1, 2, 16), torch.randn(1, 80, 16)
    assert absorbs(attention(), x, context)
    assert not absorbs(attention().train(), x, context)
    for name in ("linear_k", "linear_v", "linear_pos"):
        module = attention()
        setattr(module, name, Wrapped(getattr(module, name)))
        assert not absorbs(module, x, context)


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Return a list that gets the number of queries of each call of absorbed attention."""
    queries: list[int] = []

    def counted(module: Any, x: Tensor, *args: Any, **named: Any) -> Tensor:
        queries.append(x.size(1))
        return absorbed_attention(module, x, *args, **named)

    monkeypatch.setattr(ABSORBED, "compute", counted)
    return queries


def encoder(**settings: Any) -> nn.Module:
    return small_encoder(streaming=True, att_context_size=[32, 3], time_reduce_idx=1, d_model=64, **settings)


@pytest.mark.parametrize("settings", [{}, {"use_pytorch_sdpa": True}], ids=str)
def test_streaming_steps_use_absorbed_attention_in_every_layer_and_whole_utterances_do_not(calls, settings):
    streaming = encoder(**settings)
    streaming(features(1, 160))
    assert calls == []
    streaming(features(1, 16), None, streaming.init_state(1))
    assert calls == [4, 2, 2, 4]


def test_streaming_steps_in_training_do_not_use_absorbed_attention(calls):
    streaming = encoder().train()
    streaming(features(2, 16), None, streaming.init_state(2))
    assert calls == []


def test_quantized_and_adapted_layers_stream_without_absorbed_attention(calls):
    adapted = encoder()
    for layer in adapted.layers:
        layer.self_attn.linear_v = Wrapped(layer.self_attn.linear_v)
    linears = {name for name, module in adapted.named_modules() if isinstance(module, nn.Linear) and "attn" in name}
    for module in (adapted, torch.ao.quantization.quantize_dynamic(encoder(), linears)):
        x, state = features(1, 96), module.init_state(1)
        with torch.no_grad():
            chunks = [module(part, None, state)[0] for part in x.split(16, dim=2)]
            whole, _ = module(x)
        # the scales of a quantized layer depend on the input frames
        atol = ROUNDING if module is adapted else 0.3
        assert_close(torch.cat(chunks, dim=2), whole, atol=atol, rtol=0)
    assert calls == []
