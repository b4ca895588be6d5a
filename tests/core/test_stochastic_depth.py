"""Tests of stochastic depth: training leaves out layers and keeps the expectation; evaluation does not change."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core.stochastic_depth import drop_layer, drop_probabilities
from tests.samples.encoders import features, small_encoder

ALWAYS = 1.0 - 1e-9  # torch.rand is below it


def test_probabilities_are_linear_or_uniform_and_zero_for_the_first_layers():
    assert drop_probabilities(5, 0.4, "linear", 1) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert drop_probabilities(5, 0.4, "uniform", 3) == [0, 0, 0, 0.4, 0.4]
    assert drop_probabilities(5, 0.4, "linear", 5) == [0] * 5


def test_the_expectation_of_what_a_layer_adds_does_not_change():
    torch.manual_seed(0)
    x, output = torch.zeros(1), torch.ones(1)
    outputs = torch.cat([drop_layer(output, x, 0.3) for _ in range(10000)])
    assert sorted(set(outputs.tolist())) == pytest.approx([0.0, 1 / 0.7])
    assert outputs.mean().item() == pytest.approx(1.0, abs=0.03)  # 5 standard deviations


def test_layers_inside_the_unet_are_left_out_too():
    encoder = small_encoder(
        time_reduce_idx=1,
        time_recovery_idx=3,
        stochastic_depth_drop_prob=ALWAYS,
        stochastic_depth_mode="uniform",
    )
    only_first = small_encoder(time_reduce_idx=1, time_recovery_idx=3)
    for layer in only_first.layers[1:]:
        layer.forward = lambda x, *_: x
    x = features(2, 77)
    assert (encoder(x)[0] - only_first(x)[0]).abs().max() > 0.1  # evaluation uses every layer
    encoder.train(), only_first.train()
    assert_close(encoder(x)[0], only_first(x)[0], atol=0, rtol=0)


def test_stochastic_depth_does_not_change_evaluation():
    x = features(2, 77)
    dropped = small_encoder(stochastic_depth_drop_prob=0.5, stochastic_depth_mode="uniform")
    assert_close(dropped(x)[0], small_encoder()(x)[0], atol=0, rtol=0)
    dropped.train(), torch.manual_seed(0)
    assert (dropped(x)[0] - small_encoder().train()(x)[0]).abs().max() > 0.1


def test_layers_that_are_left_out_get_gradients_of_zero():
    encoder = small_encoder(stochastic_depth_drop_prob=ALWAYS, stochastic_depth_mode="uniform").train()
    encoder(features(2, 77))[0].square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert encoder.layers[3].feed_forward1.linear1.weight.grad.abs().max() == 0
    assert encoder.layers[0].feed_forward1.linear1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"stochastic_depth_drop_prob": 1.0}, "stochastic_depth_drop_prob=1.0 must be at least 0"),
        ({"stochastic_depth_drop_prob": -0.1}, "stochastic_depth_drop_prob=-0.1"),
        ({"stochastic_depth_start_layer": 0}, "stochastic_depth_start_layer=0 must be 1 to n_layers=4"),
        ({"stochastic_depth_start_layer": 5}, "stochastic_depth_start_layer=5"),
        ({"stochastic_depth_mode": "square"}, "stochastic_depth_mode='square': expected 'linear' or 'uniform'"),
    ],
)
def test_wrong_settings_are_refused_by_value(settings, words):
    with pytest.raises(ValueError, match=words):
        small_encoder(**settings)
