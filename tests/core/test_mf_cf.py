"""Tests of the layers between Conformer and Squeezeformer: their equations, and the single change of each layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.samples.encoders import small_encoder

ENTRANCES = {"self_attn_scale", "feed_forward1_scale", "conv_scale", "feed_forward2_scale"}


@pytest.mark.parametrize("block", ["mf_cf_glu", "mf_cf"])
def test_a_layer_has_a_norm_before_and_after_each_module(block):
    encoder = small_encoder(block=block)
    layer, x = encoder.layers[0], torch.randn(2, 9, 16)
    frames = encoder.frames(x, torch.tensor([9, 7]), None)
    _, positions = encoder.pos_enc(x, frames)

    def norm(y: Tensor, name: str) -> Tensor:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * getattr(layer, name).weight + getattr(layer, name).bias

    y = norm(x + layer.self_attn(norm(x, "self_attn_scale"), frames, positions), "norm_self_att")
    y = norm(y + layer.feed_forward1(norm(y, "feed_forward1_scale")), "norm_feed_forward1")
    y = norm(y + layer.conv(norm(y, "conv_scale"), frames), "norm_conv")
    y = norm(y + layer.feed_forward2(norm(y, "feed_forward2_scale")), "norm_feed_forward2")
    assert_close(layer(x, frames, positions), y, atol=1e-5, rtol=0)
    assert (layer(x, frames, positions) - layer(x + 0.1 * torch.randn_like(x), frames, positions)).abs().max() > 1e-2


def shapes(block: str) -> dict[str, torch.Size]:
    """Return the shapes of the parameters of the first layer and of the encoder's own norm."""
    named = small_encoder(block=block).named_parameters()
    first = {name: p.shape for name, p in named if name.startswith(("layers.0.", "pre_ln."))}
    return {name.removeprefix("layers.0."): shape for name, shape in first.items()}


def test_mf_cf_glu_differs_from_conformer_only_in_the_place_of_norms():
    conformer, gated = shapes("conformer"), shapes("mf_cf_glu")
    assert {name.partition(".")[0] for name in conformer.keys() ^ gated.keys()} == ENTRANCES | {"norm_out"}
    assert all(gated[name] == conformer[name] for name in gated.keys() & conformer.keys())


def test_swish_instead_of_glu_only_doubles_the_width_of_the_convolution():
    gated, swish = shapes("mf_cf_glu"), shapes("mf_cf")
    wider = {name for name in gated if gated[name] != swish[name]}
    assert gated.keys() == swish.keys()
    assert {name.rpartition(".")[0] for name in wider} == {
        f"conv.{part}" for part in ("depthwise_conv", "batch_norm", "pointwise_conv2")
    }
    for name in wider:
        assert swish[name].numel() == 2 * gated[name].numel()


def test_scales_replace_the_norms_before_modules_and_the_encoder_gets_a_norm():
    norms, scales = shapes("mf_cf"), shapes("squeezeformer")
    assert {name.partition(".")[0] for name in norms.keys() ^ scales.keys()} == ENTRANCES | {"pre_ln"}
    assert all(norms[name] == scales[name] for name in norms.keys() & scales.keys())


def test_for_normalized_inputs_a_norm_with_weights_of_one_equals_a_scale_of_one():
    normed, scaled = small_encoder(block="mf_cf"), small_encoder(block="squeezeformer")
    for encoder in (normed, scaled):
        for module in (
            module for name, module in encoder.layers[0].named_modules() if "norm" in name or name in ENTRANCES
        ):
            for parameter, value in zip(module.parameters(), (1.0, 0.0)):  # weight and bias
                nn.init.constant_(parameter, value)
    normed.layers[0].load_state_dict(
        {name: p for name, p in scaled.layers[0].state_dict().items() if not name.startswith(tuple(ENTRANCES))},
        strict=False,
    )
    x = nn.functional.layer_norm(torch.randn(2, 9, 16), [16])
    frames = scaled.frames(x, torch.tensor([9, 9]), None)
    _, positions = scaled.pos_enc(x, frames)
    first, second = (
        (layer(x, frames, positions), layer(3 * x, frames, positions)) for layer in (normed.layers[0], scaled.layers[0])
    )
    assert_close(first[0], second[0], atol=1e-4, rtol=0)
    assert (first[1] - second[1]).abs().max() > 1e-2
