"""Tests of optimize_for_inference: the outputs do not change; training, saving and loading are refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder, layer_call
from nemo_squeezeformer.core.cpu import linear as fast_linear
from nemo_squeezeformer.core.cpu.linear import FastLinear
from tests.samples.encoders import features, small_encoder

ROUNDING = 1e-5  # float32 products with folded weights, over four layers
PACKS = hasattr(torch.ops.mkldnn, "_linear_pointwise")

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "U-Net": {"time_reduce_idx": 1},
    "nested U-Net": {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]},
    "conformer": {"block": "conformer"},
    "mf_cf_glu": {"block": "mf_cf_glu", "time_reduce_idx": 1},
    "mf_cf": {"block": "mf_cf"},
    "conformer without biases": {"block": "conformer", "use_bias": False, "time_reduce_idx": 1},
    "scales that stay the identity": {"adaptive_scale": False},
    "no biases": {"use_bias": False},
    "DeepNorm": {"deep_norm": True, "time_reduce_idx": 1},
    "abs_pos": {"self_attention_model": "abs_pos"},
    "rope": {"self_attention_model": "rope", "time_reduce_idx": 1},
    "local": {"self_attention_model": "rel_pos_local_attn", "att_context_size": [4, 3], "time_reduce_idx": 1},
    "tied position biases": {"untie_biases": False},
    "a limited context": {"att_context_size": [9, 5]},
    "chunks, dcc": {"att_context_style": "chunked_limited", "att_context_size": [8, 3], "conv_context_style": "dcc"},
    "fused_batch_norm": {"conv_norm_type": "fused_batch_norm"},
    "layer_norm": {"conv_norm_type": "layer_norm"},
    "instance_norm": {"conv_norm_type": "instance_norm"},
    "group_norm": {"conv_norm_type": "group_norm4"},
    "striding": {"subsampling": "striding", "subsampling_factor": 8},
    "stacking": {"subsampling": "stacking_norm"},
    "no subsampling": {"subsampling": None},
    "causal": {"causal_downsampling": True, "conv_context_size": "causal"},
    "projected": {"feat_out": 8, "xscaling": False},
    "sdpa": {"use_pytorch_sdpa": True},
    "checkpointed": {"gradient_checkpointing": True},
}
TOKENS = {"self_attention_model": "rel_pos_local_attn", "att_context_size": [4, 3], "global_tokens": 2}
VARIANTS["global tokens"] = TOKENS | {"global_tokens_spacing": 5}
VARIANTS["global tokens of their own"] = TOKENS | {"global_attn_separate": True}


pytestmark = pytest.mark.usefixtures("onednn")


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features and lengths: odd and even, a single frame, shorter than a kernel, with and without padding."""
    for t in (1, 2, 20, 93, 160):
        yield features(3, t, seed=t), torch.tensor([t, max(t // 2, 1), max(t - 4, 1)])
    yield features(2, 97), torch.tensor([97, 97])


def optimized(encoder: SqueezeformerEncoder) -> SqueezeformerEncoder:
    return copy.deepcopy(encoder).optimize_for_inference()


def gives(encoder: SqueezeformerEncoder, x: Tensor, lengths: Tensor) -> Tensor:
    with torch.inference_mode():
        return encoder(x, lengths)[0]


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_an_optimized_encoder_gives_the_same_outputs(settings):
    encoder = small_encoder(n_heads=2, **settings)
    fast = optimized(encoder)
    for x, lengths in batches():
        expected = gives(encoder, x, lengths)
        assert expected.std() > 0.1
        assert_close(gives(fast, x, lengths), expected, atol=ROUNDING, rtol=0)
    assert_close(fast(x, lengths)[0], expected, atol=ROUNDING, rtol=0)  # also with gradients enabled


@pytest.mark.parametrize("name", ["self_attn_scale", "feed_forward1_scale", "conv_scale", "feed_forward2_scale"])
def test_scales_are_folded_and_the_comparison_detects_a_lost_scale(name):
    encoder = small_encoder()
    assert all(isinstance(getattr(layer, name), nn.Identity) for layer in optimized(encoder).layers)
    assert_lost_without(encoder, lambda layer: setattr(layer, name, nn.Identity()))


@pytest.mark.parametrize("norm", ["batch_norm", "fused_batch_norm"])
def test_norms_with_fixed_statistics_are_folded_and_the_comparison_detects_a_lost_norm(norm):
    encoder = small_encoder(conv_norm_type=norm)
    assert all(isinstance(layer.conv.batch_norm, nn.Identity) for layer in optimized(encoder).layers)
    assert_lost_without(encoder, lambda layer: setattr(layer.conv, "batch_norm", nn.Identity()))


def assert_lost_without(encoder: SqueezeformerEncoder, lose: Any) -> None:
    x, lengths = features(2, 40), torch.tensor([40, 30])
    expected = gives(encoder, x, lengths)
    lose(encoder.layers[1])
    assert (gives(encoder, x, lengths) - expected).abs().max() > 0.01


@pytest.mark.parametrize("norm", ["layer_norm", "instance_norm", "group_norm4"])
def test_norms_with_statistics_of_the_input_do_not_change(norm):
    encoder = small_encoder(conv_norm_type=norm)
    kept = [type(layer.conv.batch_norm) for layer in encoder.layers]
    assert [type(layer.conv.batch_norm) for layer in optimized(encoder).layers] == kept


@pytest.mark.parametrize("packs", [True, False])
def test_linear_layers_use_either_library_and_queries_keys_and_values_share_a_projection(monkeypatch, packs):
    monkeypatch.setattr(fast_linear, "is_onednn_faster", lambda: PACKS and packs)
    encoder = small_encoder(time_reduce_idx=1, feat_out=8)
    fast = optimized(encoder)
    assert not [name for name, module in fast.named_modules() if type(module) is nn.Linear]
    pointwise = [m for m in fast.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)) and {*m.kernel_size} == {1}]
    assert not pointwise
    attention = fast.layers[0].self_attn
    whole = attention.linear_qkv.weight.untyped_storage()
    for linear in (attention.linear_q, attention.linear_k, attention.linear_v):
        assert linear.weight.untyped_storage().data_ptr() == whole.data_ptr()
    x, lengths = features(1, 160), torch.tensor([160])
    assert_close(gives(fast, x, lengths), gives(encoder, x, lengths), atol=ROUNDING, rtol=0)
    packed = [m.packed is not None for m in fast.modules() if isinstance(m, FastLinear)]
    assert all(packed) if fast_linear.is_onednn_faster() else not any(packed)


@pytest.mark.parametrize("settings", [{}, {"conv_context_style": "dcc", "time_reduce_idx": 1}], ids=["", "dcc, U-Net"])
@pytest.mark.parametrize("left", [2, 40])
def test_an_optimized_encoder_streams_with_the_same_outputs(left, settings):
    encoder = small_encoder(
        streaming=True, att_context_style="chunked_limited", att_context_size=[2 * left, 1], **settings
    )
    fast = optimized(encoder)
    x, lengths, size = features(2, 120), torch.tensor([120, 101]), 2 * encoder.subsampling_factor
    states = [model.init_state(2) for model in (encoder, fast)]
    for at in range(0, x.size(2), size):
        part, n = x[:, :, at : at + size], (lengths - at).clamp(0, size)
        with torch.inference_mode():
            expected, output = (model(part, n, state)[0] for model, state in zip((encoder, fast), states))
        assert expected.std() > 0.1
        assert_close(output, expected, atol=ROUNDING, rtol=0)


def test_saving_and_loading_are_refused_and_the_error_names_the_remedy():
    encoder = small_encoder()
    fast = optimized(encoder)
    for saved in (fast, nn.ModuleDict({"encoder": fast}), copy.deepcopy(fast)):
        with pytest.raises(RuntimeError, match="Restore the model again"):
            saved.state_dict()
    with pytest.raises(RuntimeError, match="Restore the model again"):
        fast.load_state_dict(encoder.state_dict())
    small_encoder(seed=1).load_state_dict(encoder.state_dict())  # another encoder still loads the weights


def test_training_mode_is_refused_until_eval_is_called():
    fast = small_encoder().train().optimize_for_inference()
    assert not any(module.training for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    x = features(1, 20)
    fast.train()
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        fast(x)
    fast.eval()(x)


def test_a_second_optimization_changes_nothing():
    fast = small_encoder().optimize_for_inference()
    modules = list(fast.modules())
    assert fast.optimize_for_inference() is fast and list(fast.modules()) == modules
    assert len(fast._state_dict_pre_hooks) == 1


def test_a_trace_works_for_other_lengths():
    encoder = small_encoder(n_layers=3, time_reduce_idx=1, n_heads=2)
    fast = optimized(encoder)
    x, lengths = features(2, 100), torch.tensor([100, 90])
    gives(fast, x, lengths)  # cached encodings must not become constants of the graph
    traced = torch.jit.trace(fast, (x, lengths))
    for x, lengths in batches():
        if x.size(2) > 4:
            assert_close(traced(x, lengths)[0], gives(encoder, x, lengths), atol=ROUNDING, rtol=0)


def test_copies_and_pickles_give_the_same_outputs():
    fast, x, lengths = optimized(small_encoder()), features(2, 90), torch.tensor([90, 80])
    expected = gives(fast, x, lengths)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for copied in (copy.deepcopy(fast), torch.load(file, weights_only=False)):
        assert_close(gives(copied, x, lengths), expected, atol=0, rtol=0)


def test_an_optimized_encoder_follows_the_dtype_of_its_weights():
    encoder, x, lengths = small_encoder(), features(2, 90), torch.tensor([90, 80])
    fast = optimized(encoder)
    gives(fast, x, lengths)  # the cached encodings are float32
    expected = gives(encoder.double(), x.double(), lengths)
    assert_close(gives(fast.double(), x.double(), lengths), expected, atol=ROUNDING, rtol=0)
    assert_close(gives(fast.float(), x, lengths), expected.float(), atol=ROUNDING, rtol=0)


def test_in_bfloat16_an_optimized_encoder_loses_no_more_precision_than_before():
    encoder, x, lengths = small_encoder(), features(2, 90), torch.tensor([90, 80])
    exact = gives(encoder, x, lengths)
    low = encoder.bfloat16()
    loss = (gives(low, x.bfloat16(), lengths).float() - exact).abs().mean()
    output = gives(optimized(low), x.bfloat16(), lengths)
    assert output.dtype == torch.bfloat16
    assert loss > 1e-3 and (output.float() - exact).abs().mean() < 1.3 * loss


def test_under_autocast_an_optimized_encoder_loses_as_much_precision_as_before():
    encoder, x, lengths = small_encoder(), features(2, 90), torch.tensor([90, 80])
    exact, fast = gives(encoder, x, lengths), optimized(encoder)
    gives(fast, x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        loss, low = ((gives(model, x, lengths).float() - exact).abs().mean() for model in (encoder, fast))
    assert 0.7 * loss < low < 1.3 * loss


def test_gradients_of_the_features_are_the_same():
    gradients, encoder, lengths = [], small_encoder(), torch.tensor([90, 80])
    for model in (encoder, optimized(encoder)):
        gives(model, features(2, 90), lengths)
        x = features(2, 90).requires_grad_()
        model(x, lengths)[0].square().sum().backward()
        gradients.append(x.grad / x.grad.abs().max())
    assert_close(gradients[1], gradients[0], atol=ROUNDING, rtol=0)


def test_layers_that_are_not_plain_do_not_change():
    encoder, x, lengths = small_encoder(), features(2, 90), torch.tensor([90, 80])
    seen: list[Tensor] = []
    encoder.layers[1].feed_forward1.linear1.register_forward_hook(lambda module, args, output: seen.append(output))
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(encoder), {nn.Linear}, dtype=torch.qint8)
    expected = [gives(model, x, lengths) for model in (encoder, quantized)]
    for model, output in zip((encoder, quantized), expected):
        stays = type(model.layers[1].feed_forward1.linear1)
        model.optimize_for_inference()
        assert type(model.layers[1].feed_forward1.linear1) is stays
        seen.clear()
        error = (gives(model, x, lengths) - output).abs().max()
        assert seen and error < (ROUNDING if model is encoder else 0.1)  # a value may round to another 8-bit value


def test_compiled_layers_are_optimized_too(monkeypatch):
    monkeypatch.setattr(layer_call, "BACKEND", "eager")
    torch._dynamo.reset()
    encoder, compiled = (small_encoder(n_layers=2, compile=on) for on in (False, True))
    compiled.optimize_for_inference()
    x, lengths = features(2, 61), torch.tensor([61, 52])
    assert_close(gives(compiled, x, lengths), gives(encoder, x, lengths), atol=ROUNDING, rtol=0)
