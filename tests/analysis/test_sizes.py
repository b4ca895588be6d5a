"""The published sizes agree with the network and the recipes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nemo_squeezeformer import core
from nemo_squeezeformer.analysis.sizes import PUBLISHED, sizes


def encoder_parameters(name: str) -> int:
    with torch.device("meta"):
        encoder = core.SqueezeformerEncoder(feat_in=80, **sizes()[name].encoder)
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_size_has_the_published_number_of_parameters(name):
    assert encoder_parameters(name) == PUBLISHED[name].encoder_parameters


def test_tiny_has_about_two_million_parameters():
    assert 1.9e6 < encoder_parameters("tiny") < 2.3e6
    assert sizes()["tiny"].published is None


def test_sizes_come_smallest_first_and_recover_at_the_last_layer():
    assert list(sizes()) == ["tiny", "xs", "s", "sm", "m", "ml", "l"]
    for size in sizes().values():
        assert size.time_recovery_idx == size.n_layers - 1
        assert size.d_model % size.n_heads == 0


def test_training_settings_are_the_published_settings():
    figures = {name: (size.time_masks, size.peak_lr, size.peak_lr_batch) for name, size in sizes().items()}
    assert figures["xs"] == (5, 2e-3, 1024)
    assert figures["m"] == (7, 1.5e-3, 1024)
    assert figures["l"] == (10, 5e-4, 2048)


def test_sizes_can_be_read_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None; from nemo_squeezeformer.analysis.sizes import sizes;"
        "assert sizes()['s'].d_model == 196; assert 'omegaconf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_size_takes_the_published_operations_and_saves_by_its_unet(name):
    published = PUBLISHED[name]
    assert gflops(name) == pytest.approx(published.gflops, rel=0.01)
    assert gflops(name, time_reduce_idx=None) == pytest.approx(published.gflops_without_unet, rel=0.01)


@pytest.mark.parametrize("name, expected", [("xs", 13.84), ("s", 26.53), ("m", 73.22), ("l", 290.4)])
def test_rotary_positions_take_the_operations_of_absolute_positions(name, expected):
    assert gflops(name, self_attention_model="rope") == pytest.approx(expected, abs=0.05)


def gflops(name: str, **settings) -> float:
    """Return the operations for 30 s of 80-bin features, in 10^9."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        encoder = core.SqueezeformerEncoder(feat_in=80, **(sizes()[name].encoder | settings)).eval()
        encoder(torch.randn(1, 80, 3000))
    return counter.get_total_flops() / 1e9
