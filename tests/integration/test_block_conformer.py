"""Tests of ``block: conformer``: equality with NeMo's ConformerEncoder, and Conformer layers in the U-Net."""

from __future__ import annotations

import pytest
import torch
from nemo.collections.asr.modules import ConformerEncoder
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.encoders import SMALL, enliven, features, valid

CONFORMER = SMALL | {
    "block": "conformer",
    "time_reduce_idx": None,
    "subsampling": "striding",
    "dropout_pre_encoder": 0.0,
    "dropout_att": 0.0,
}
SETTINGS = {
    "default": {},
    "abs_pos": {"self_attention_model": "abs_pos"},
    "dw_striding, factor 8": {"subsampling": "dw_striding", "subsampling_factor": 8},
    "tied biases": {"untie_biases": False},
    "context 4, 2": {"att_context_size": [4, 2]},
    "chunks": {"att_context_size": [8, 3], "att_context_style": "chunked_limited", "conv_context_size": "causal"},
    "local attention": {"self_attention_model": "rel_pos_local_attn", "att_context_size": [4, 4]},
    "layer_norm": {"conv_norm_type": "layer_norm"},
    "no bias": {"use_bias": False},
    "no xscaling": {"xscaling": False},
    "feat_out": {"feat_out": 7},
    "sdpa": {"use_pytorch_sdpa": True},
}
LENGTHS = (5, 37, 64, 101, 200)


def both(settings: dict) -> tuple[ConformerEncoder, SqueezeformerEncoder]:
    """Return NeMo's encoder and a Squeezeformer encoder with the same weights."""
    torch.manual_seed(0)
    ours_alone = ("block", "time_reduce_idx")
    theirs = ConformerEncoder(**{k: v for k, v in (CONFORMER | settings).items() if k not in ours_alone})
    enliven(theirs)
    ours = SqueezeformerEncoder(**(CONFORMER | settings))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def batch(length: int) -> dict[str, torch.Tensor]:
    """Return three utterances. Two are padded with zeros, as by NeMo's preprocessor."""
    lengths = torch.tensor([length, max(1, length // 2), max(1, length - 3)])
    x = features(3, length)
    return {"audio_signal": x.masked_fill(torch.arange(length) >= lengths[:, None, None], 0.0), "length": lengths}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_equals_nemos_conformer_with_its_weights(settings):
    theirs, ours = both(settings)
    for training in (False, True):
        theirs.train(training), ours.train(training)
        for length in LENGTHS[2 * training :]:  # a batch norm over one frame divides by almost 0
            inputs = batch(length)
            with torch.no_grad():
                expected, expected_lengths = theirs(**inputs)
                output, lengths = ours(**inputs)
            assert lengths.tolist() == expected_lengths.tolist() and output.shape == expected.shape
            assert_close(valid(output, lengths), valid(expected, lengths), atol=1e-5, rtol=0)


def test_a_wrong_weight_changes_the_output():
    for name in ("pos_bias_v", "norm_out.weight", "pointwise_conv1.bias", "running_var"):
        theirs, ours = both({})
        for key, tensor in ours.state_dict().items():
            if name in key:
                tensor.mul_(1.1).add_(0.01)
        assert (theirs.eval()(**batch(64))[0] - ours.eval()(**batch(64))[0]).abs().max() > 1e-3, name


def test_gradients_equal_the_gradients_of_nemo():
    theirs, ours = both({})
    gradients = []
    for encoder in (theirs.train(), ours.train()):
        output, lengths = encoder(**batch(101))
        (valid(output, lengths) * features(1, 1, 16).flatten()).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in encoder.named_parameters()})
    scale = max(gradient.norm() for gradient in gradients[0].values())
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        assert (gradients[1][name] - expected).norm() <= 1e-5 * scale, name


@pytest.mark.parametrize("mode", ["linear", "uniform"])
def test_stochastic_depth_skips_the_same_layers_as_nemo(mode):
    theirs, ours = both({"stochastic_depth_drop_prob": 0.5, "stochastic_depth_mode": mode})
    assert ours.layer_drop_probs == theirs.layer_drop_probs
    outputs = set()
    for seed in range(6):
        results = []
        for encoder in (theirs.train(), ours.train()):
            torch.manual_seed(seed)
            output, lengths = encoder(**batch(101))
            results.append(valid(output, lengths))
        assert_close(results[1], results[0], atol=1e-5, rtol=0)
        outputs.add(round(results[0][0, 0].item(), 4))
    assert len(outputs) > 1


def test_conformer_layers_run_inside_the_temporal_unet():
    conformer = SqueezeformerEncoder(**(CONFORMER | {"time_reduce_idx": 1, "time_recovery_idx": 3})).eval()
    plain = SqueezeformerEncoder(**CONFORMER).eval()
    assert {name.partition(".")[0] for name in conformer.state_dict().keys() - plain.state_dict().keys()} == {
        "time_reduce_layer",
        "time_recovery_layer",
    }
    rates = {}
    for i, layer in enumerate(conformer.layers):
        layer.register_forward_hook(lambda module, args, output, i=i: rates.update({i: output.size(1)}))
    output, lengths = conformer(**batch(101))
    assert rates == {0: 26, 1: 13, 2: 13, 3: 26}
    alone, _ = conformer(audio_signal=batch(101)["audio_signal"][1:2, :, :50], length=torch.tensor([50]))
    assert_close(output[1, :, : lengths[1]], alone[0], atol=1e-5, rtol=0)


def test_conformer_layers_stream():
    encoder = SqueezeformerEncoder(
        **(CONFORMER | {"time_reduce_idx": 1, "streaming": True, "att_context_size": [8, 3]})
    ).eval()
    enliven(encoder)
    x = features(2, 75)
    whole, _ = encoder(audio_signal=x)
    state = encoder.init_state(2)
    core_forward = super(SqueezeformerEncoder, encoder).forward
    chunks = [core_forward(part, state=state)[0] for part in x.split(16, dim=2)]
    assert_close(torch.cat(chunks, dim=2), whole, atol=1e-5, rtol=0)


def test_adapters_change_the_output_as_in_nemos_conformer_layers():
    from nemo.collections.asr.modules.conformer_encoder import ConformerEncoderAdapter
    from nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module import (
        RelPositionMultiHeadAttentionAdapterConfig,
    )
    from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig

    from nemo_squeezeformer import SqueezeformerEncoderAdapter

    theirs = ConformerEncoderAdapter(**{k: v for k, v in CONFORMER.items() if k not in ("block", "time_reduce_idx")})
    enliven(theirs)
    ours = SqueezeformerEncoderAdapter(**CONFORMER)
    ours.load_state_dict(theirs.state_dict())
    inputs = batch(64)
    before, lengths = ours.eval()(**inputs)
    for encoder in (theirs, ours):
        encoder.add_adapter("linear", LinearAdapterConfig(in_features=16, dim=4))
        encoder.add_adapter("attention", RelPositionMultiHeadAttentionAdapterConfig(n_head=2, n_feat=16))
    for name, parameter in theirs.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    output, _ = ours.eval()(**inputs)
    assert (output - before).abs().max() > 1e-2
    assert_close(valid(output, lengths), valid(theirs.eval()(**inputs)[0], lengths), atol=1e-5, rtol=0)


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match="block='zipformer': expected one of 'squeezeformer', 'conformer', 'mf_cf"):
        SqueezeformerEncoder(**(SMALL | {"block": "zipformer"}))
