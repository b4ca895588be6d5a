"""Tests of DeepNorm: the weight of the output of each module, and the initial weights."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.deep_norm import branch_weight
from tests.samples.encoders import SMALL, features, small_encoder


def test_the_weight_and_the_initial_values_are_those_of_the_article():
    assert branch_weight(4) == 0.5  # alpha is (2N) ** (1 / 4) with N layers of two modules, here 8
    torch.manual_seed(0)
    published = SqueezeformerEncoder(**SMALL)
    torch.manual_seed(0)
    deep = SqueezeformerEncoder(**SMALL, deep_norm=True)
    last = ("self_attn.linear_out.weight", "feed_forward1.linear2.weight", "feed_forward2.linear2.weight")
    beta = 64**-0.25  # (8N) ** (-1 / 4)
    for name, weight in deep.named_parameters():
        factor = beta if name.endswith((*last, "conv.pointwise_conv2.weight")) else 1.0
        assert_close(weight, published.get_parameter(name) * factor, msg=name)


@pytest.mark.parametrize("block", ["squeezeformer", "mf_cf_glu", "mf_cf"])
def test_the_weight_multiplies_the_output_of_each_module(block):
    settings = {"block": block, "time_reduce_idx": 1, "time_recovery_idx": 3}
    deep, published = small_encoder(deep_norm=True, **settings), small_encoder(**settings)
    published.load_state_dict(deep.state_dict())
    x, lengths = features(2, 77), torch.tensor([77, 50])
    assert (deep(x, lengths)[0] - published(x, lengths)[0]).abs().max() > 0.1
    with torch.no_grad():
        for layer in published.layers:
            for last in layer.last_operations():
                last.weight.mul_(0.5)
                last.bias.mul_(0.5)
    assert_close(deep(x, lengths)[0], published(x, lengths)[0], atol=1e-5, rtol=0)
    deep.train(), published.train()
    assert_close(deep(x, lengths)[0], published(x, lengths)[0], atol=1e-5, rtol=0)


def test_a_layer_whose_sums_have_no_norm_refuses_it():
    with pytest.raises(ValueError, match=r"deep_norm=True with block='conformer'"):
        small_encoder(deep_norm=True, block="conformer")
