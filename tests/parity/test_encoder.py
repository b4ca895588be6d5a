"""Tests that the network equals NeMo 2.7.3's Squeezeformer: both run with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.samples.encoders import SMALL, enliven, features, valid

pytest.importorskip(
    "nemo.collections.asr.parts.submodules.squeezeformer_modules",
    reason="needs NeMo 2.7.3, the last with a Squeezeformer: make test-nemo-2.7.3",
    exc_type=ImportError,
)

LENGTHS = [*range(1, 41), 63, 64, 97, 130, 199, 200, 255, 256, 301, 399, 400]

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "striding": {"subsampling": "striding"},
    "stacking": {"subsampling": "stacking"},
    "no subsampling": {"subsampling": None},
    "factor 1": {"subsampling_factor": 1},
    "factor 2": {"subsampling_factor": 2},
    "factor 8": {"subsampling_factor": 8},
    "striding, factor 8": {"subsampling": "striding", "subsampling_factor": 8},
    "stacking, factor 8": {"subsampling": "stacking", "subsampling_factor": 8},
    "8 subsampling channels": {"subsampling_conv_channels": 8},
    "abs_pos": {"self_attention_model": "abs_pos"},
    "context 4, 2": {"att_context_size": [4, 2]},
    "context 5, unlimited": {"att_context_size": [5, -1]},
    "context unlimited, 0": {"att_context_size": [-1, 0]},
    "feat_out": {"feat_out": 7},
    "feat_out as d_model": {"feat_out": 16},
    "tied biases": {"untie_biases": False},
    "no xscaling": {"xscaling": False},
    "no adaptive scale": {"adaptive_scale": False},
    "layer_norm": {"conv_norm_type": "layer_norm"},
    "instance_norm": {"conv_norm_type": "instance_norm"},
    "fused_batch_norm": {"conv_norm_type": "fused_batch_norm"},
    "wide feed-forward": {"ff_expansion_factor": 2},
    "2 heads": {"n_heads": 2},
    "kernel 31": {"conv_kernel_size": 31},
    "odd feature width": {"feat_in": 13},
}
UNETS = [(None, None), (0, 0), (0, 2), (0, None), (1, 2), (2, 2), (3, 3), (1, None)]
CASES = [
    *(pytest.param(settings | {"time_reduce_idx": 1}, id=name) for name, settings in SETTINGS.items()),
    *(
        pytest.param({"time_reduce_idx": reduce, "time_recovery_idx": recover}, id=f"reduce={reduce}-recover={recover}")
        for reduce, recover in UNETS
    ),
]


def both(settings: dict[str, Any]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return NeMo's encoder, and our encoder with the same weights."""
    from nemo.collections.asr.modules import SqueezeformerEncoder as InTree

    from nemo_squeezeformer import SqueezeformerEncoder

    torch.manual_seed(0)
    theirs = InTree(**(SMALL | settings))
    enliven(theirs)
    # By default, our encoder has a temporal U-Net and NeMo's encoder does not.
    ours = SqueezeformerEncoder(**(SMALL | {"time_reduce_idx": None} | settings))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert type(theirs).__module__ != type(ours).__module__
    return theirs, ours


def batch(length: int, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return three utterances; two of them are padded with zeros, as by NeMo's preprocessor."""
    lengths = torch.tensor([length, max(1, length // 2), max(1, length - 3)])
    if str(settings.get("subsampling")).startswith("stacking"):
        lengths[:] = length  # see test_the_length_of_stacked_frames_does_not_depend_on_the_batch
    x = features(3, length, settings.get("feat_in", SMALL["feat_in"]))
    return {"audio_signal": x.masked_fill(torch.arange(length) >= lengths[:, None, None], 0.0), "length": lengths}


def lengths_for(settings: dict[str, Any], training: bool) -> list[int]:
    shortest = 1
    if settings.get("conv_norm_type") == "instance_norm":
        shortest = 9  # PyTorch's InstanceNorm, which NeMo uses, refuses a single frame
    if training:
        # A BatchNorm over one or two frames divides by a variance near zero, which amplifies rounding errors.
        shortest = max(shortest, 4 * settings.get("subsampling_factor", 4))
    return [length for length in LENGTHS if length >= shortest]


@pytest.mark.parametrize("settings", CASES)
def test_matches_nemo_2_7_3(settings, record_property):
    theirs, ours = both(settings)
    worst = 0.0
    for training in (False, True):
        theirs.train(training), ours.train(training)
        for length in lengths_for(settings, training):
            inputs = batch(length, settings)
            with torch.no_grad():
                expected, expected_lengths = theirs(**inputs)
                output, output_lengths = ours(**inputs)
            assert output_lengths.tolist() == expected_lengths.tolist(), length
            assert output.shape == expected.shape
            difference = (valid(output, output_lengths) - valid(expected, output_lengths)).abs().max().item()
            # Batch statistics add rounding: in training NeMo differs from float64 by up to 2.4e-5, and we by 1e-5.
            assert difference <= (3e-5 if training else 1e-5), (length, training)
            worst = max(worst, difference)
    record_property("largest difference", worst)
    print(f"largest difference {worst:.1e}")


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_gradients_match_nemo_2_7_3(settings, training):
    theirs, ours = both(settings)
    for length in (97, 100):
        inputs = batch(length, settings)
        gradients = []
        for encoder in (theirs.train(training), ours.train(training)):
            encoder.zero_grad()
            output, lengths = encoder(**inputs)
            (valid(output, lengths) * features(1, 1, output.size(1)).flatten()).square().sum().backward()
            gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
        expected, actual = gradients
        assert expected.keys() == actual.keys()
        whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
        for name, gradient in expected.items():
            # A gradient whose terms cancel is only rounding, so it is compared at the scale of all gradients.
            size = whole if name.endswith(CANCELLED) else torch.maximum(gradient.norm(), whole / 100)
            assert (actual[name] - gradient).norm() <= 1e-5 * size, (name, length)


# Zero except for rounding: a constant added to all scores or frames does not change a softmax or a norm over time.
CANCELLED = ("self_attn.linear_k.bias", "conv.depthwise_conv.bias")


def test_the_comparison_detects_a_wrong_weight():
    for name in ("pos_bias_v", "time_reduce_layer.dw_conv.bias", "layers.2.conv_scale.bias", "running_var"):
        theirs, ours = both({"time_reduce_idx": 1})
        for key, tensor in ours.state_dict().items():
            if name in key:
                tensor.mul_(1.1).add_(0.01)
        inputs = batch(64, {})
        difference = theirs.eval()(**inputs)[0] - ours.eval()(**inputs)[0]
        assert difference.abs().max() > 1e-3, name


def test_state_dict_names_are_those_of_nemo_2_7_3():
    theirs, ours = both({"time_reduce_idx": 1, "feat_out": 8})
    assert list(theirs.state_dict()) != [] and set(theirs.state_dict()) == set(ours.state_dict())


def test_the_length_of_stacked_frames_does_not_depend_on_the_batch():
    """NeMo adds the padding of the batch to each length: 5 frames give 2 frames alone, but 1 in a batch of 8 frames."""
    theirs, ours = both({"subsampling": "stacking"})
    five = torch.tensor([5])
    assert theirs(audio_signal=features(1, 5), length=five)[1].tolist() == [2]
    assert theirs(audio_signal=features(1, 8), length=five)[1].tolist() == [1]
    assert ours(audio_signal=features(1, 5), length=five)[1].tolist() == [2]
    assert ours(audio_signal=features(1, 8), length=five)[1].tolist() == [2]


def test_group_norm_works_here_and_fails_in_nemo():
    """NeMo builds the group norm with half the number of channels of its input."""
    from nemo.collections.asr.modules import SqueezeformerEncoder as InTree

    from nemo_squeezeformer import SqueezeformerEncoder

    settings = SMALL | {"conv_norm_type": "group_norm4"}
    with pytest.raises(RuntimeError, match="number of channels"):
        InTree(**settings)(audio_signal=features(1, 40), length=torch.tensor([40]))
    output, _ = SqueezeformerEncoder(**settings)(audio_signal=features(1, 40), length=torch.tensor([40]))
    assert_close(output.isfinite().all(), torch.tensor(True))
