"""Tests of the frame rates. ``rate=8x`` gives FastConformer's subsampling in every recipe and size."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nemo_squeezeformer import core
from nemo_squeezeformer.analysis.sizes import sizes
from nemo_squeezeformer.training.recipes import compose, recipes
from tests.samples.plain_recipes import plain

EIGHT = {"subsampling_factor": 8, "subsampling_conv_channels": 256, "conv_kernel_size": 9}
# GFLOPs of the encoder for 30 s, counted as in the paper, and millions of parameters.
FIGURES = {
    "xs": (9.62, 8.98),
    "s": (15.88, 18.22),
    "sm": (21.66, 27.38),
    "m": (38.91, 54.05),
    "ml": (79.74, 120.49),
    "l": (146.44, 228.71),
}


def rate_of(recipe: str, *overrides: str) -> dict[str, int]:
    encoder = (compose(recipe, overrides) if overrides else plain(recipe)).model.encoder
    return {name: encoder[name] for name in EIGHT}


def test_the_default_rate_is_4x():
    assert rate_of("squeezeformer_ctc_bpe") == rate_of("squeezeformer_ctc_bpe", "rate=4x")
    assert rate_of("squeezeformer_ctc_bpe")["subsampling_factor"] == 4
    assert rate_of("squeezeformer_ctc_bpe", "rate=8x", "model.encoder.conv_kernel_size=15") == EIGHT | {
        "conv_kernel_size": 15
    }


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_can_have_the_8x_rate(recipe):
    own, usual = rate_of(recipe), rate_of("squeezeformer_ctc_bpe")
    left_to_the_rate = {name for name in EIGHT if own[name] == usual[name]}
    assert left_to_the_rate
    assert rate_of(recipe, "rate=8x") == {name: (EIGHT if name in left_to_the_rate else own)[name] for name in EIGHT}


@pytest.mark.parametrize("size", FIGURES)
def test_rate_8x_needs_the_documented_number_of_operations(size):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        encoder = core.SqueezeformerEncoder(feat_in=80, **(sizes()[size].encoder | EIGHT)).eval()
        _, lengths = encoder(torch.randn(1, 80, 3000))
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert (counter.get_total_flops() / 1e9, parameters / 1e6) == pytest.approx(FIGURES[size], rel=0.01)
    assert encoder.subsampling_factor == 8
    assert counter.get_total_flops() / 1e9 < 0.6 * sizes()[size].published.gflops
