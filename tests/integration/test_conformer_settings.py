"""Tests of the arguments of NeMo's ConformerEncoder: each argument works, or is refused with a reason.

Contexts, local attention and convolutions have their own tests in core. test_nemo_modules.py compares the modules with
NeMo's modules.
"""

from __future__ import annotations

import pytest
import torch
from nemo.core.classes.common import Serialization
from nemo.utils import logging_mode
from torch.testing import assert_close

import nemo_squeezeformer.integration.encoder
from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import small_nemo_encoder
from tests.samples.encoders import features, valid


@pytest.mark.parametrize("layers, reduce", [(16, 7), (18, 8), (20, 9), (22, 10), (17, 8), (1, 0)])
def test_auto_selects_the_unet_of_the_published_sizes(layers, reduce, monkeypatch):
    logged = []
    monkeypatch.setattr(
        nemo_squeezeformer.integration.encoder.logging, "info", lambda text, mode: logged.append((text, mode))
    )
    settings = {"feat_in": 20, "d_model": 16, "n_layers": layers}
    chosen, written = SqueezeformerEncoder(**settings), SqueezeformerEncoder(**settings, time_reduce_idx=reduce)
    assert chosen.span == written.span and (chosen.span.branches[0].start, chosen.span.branches[0].stop) == (
        reduce,
        layers - 1,
    )
    assert len(logged) == 1 and f"time_reduce_idx=auto: {reduce}, " in logged[0][0]
    assert logged[0][1] == logging_mode.ONCE
    assert SqueezeformerEncoder(**settings, time_reduce_idx=None).span.branches == ()
    with pytest.raises(ValueError, match="time_reduce_idx='middle': expected 'auto'"):
        SqueezeformerEncoder(**settings, time_reduce_idx="middle")


def test_the_old_class_name_keeps_the_old_default():
    config = {
        "_target_": "nemo.collections.asr.modules.SqueezeformerEncoder",
        "feat_in": 20,
        "n_layers": 4,
        "d_model": 16,
    }
    assert not [name for name in Serialization.from_config_dict(config).state_dict() if "time_re" in name]
    config["time_reduce_idx"] = 1
    assert [name for name in Serialization.from_config_dict(config).state_dict() if "time_re" in name]


@pytest.mark.parametrize("given", [{"reduction": "pooling", "reduction_position": 2, "reduction_factor": 2}])
def test_the_reduction_of_conformer_is_refused_with_the_replacement(given):
    words = "reduction='pooling', reduction_position=2, reduction_factor=2: .*time_reduce_idx.*subsampling_factor"
    with pytest.raises(ValueError, match=words):
        small_nemo_encoder(**given)
    for off in ({"reduction": "pooling", "reduction_factor": 1}, {"reduction": None, "reduction_position": -1}):
        assert set(small_nemo_encoder(**off).state_dict()) == set(small_nemo_encoder().state_dict())


@pytest.mark.parametrize(
    "settings, sizes",
    [
        ({"att_context_style": "chunked_limited", "att_context_size": [[70, 13], [70, 6]]}, r"\[70, 6\].*\[66, 5\]"),
        (
            {
                "att_context_style": "chunked_limited_with_rc",
                "att_chunk_context_size": [[70], [1, 2, 7], [0, 1]],
                "conv_context_style": "dcc",
            },
            "chunk 1.* nearest values are 2",
        ),
    ],
)
def test_chunks_that_the_unet_would_cut_are_refused_and_work_without_it(settings, sizes):
    with pytest.raises(ValueError, match=sizes) as refused:
        small_nemo_encoder(**settings)
    assert "time_reduce_idx=None" in str(refused.value)
    small_nemo_encoder(**settings, time_reduce_idx=None)


@pytest.mark.parametrize(
    "settings",
    [{}, {"self_attention_model": "rel_pos_local_attn", "att_context_size": [4, 4], "global_attn_separate": True}],
)
def test_use_bias_false_removes_the_biases_of_linear_and_convolution_layers(settings):
    with_bias, without = (set(small_nemo_encoder(use_bias=use, **settings).state_dict()) for use in (True, False))
    gone = {
        name
        for name in with_bias
        if name.startswith("layers.")
        and name.endswith(".bias")
        and any(part in name for part in ("linear", "global_", "pointwise_conv", "depthwise_conv"))
    }
    assert with_bias - without == gone and not without - with_bias
    assert len(gone) == 4 * (4 + 4 + 3 + (3 if settings else 0))


def test_dropout_pre_encoder_acts_on_subsampled_features_and_defaults_to_dropout():
    def varies(**settings: float) -> bool:
        made = small_nemo_encoder(dropout_att=0.0, conv_norm_type="layer_norm", **settings).train()
        x = features(1, 61)
        return bool((made(audio_signal=x)[0] - made(audio_signal=x)[0]).abs().max() > 1e-3)

    assert not varies(dropout=0.0) and varies(dropout=0.0, dropout_pre_encoder=0.5)
    assert (
        small_nemo_encoder(dropout=0.3).dropout.p == 0.3
        and small_nemo_encoder(dropout=0.3, dropout_pre_encoder=0.0).dropout.p == 0.0
    )
    made = small_nemo_encoder(dropout=0.3, dropout_pre_encoder=0.0)
    assert {layer.dropout.p for layer in made.layers} == {0.3}


@pytest.mark.parametrize("model", ["rel_pos", "abs_pos"])
@pytest.mark.parametrize("context", [[-1, -1], [5, 2]])
def test_pytorchs_attention_gives_the_same_output(model, context):
    settings = {"self_attention_model": model, "att_context_size": context}
    plain, fused = (
        small_nemo_encoder(**settings),
        small_nemo_encoder(**settings, use_pytorch_sdpa=True, use_pytorch_sdpa_backends=["MATH"]),
    )
    fused.load_state_dict(plain.state_dict())
    batch = {"audio_signal": features(3, 101), "length": torch.tensor([101, 40, 0])}
    (output, lengths), (expected, _) = fused(**batch), plain(**batch)
    assert output.isfinite().all()
    assert_close(valid(output, lengths), valid(expected, lengths), atol=1e-5, rtol=0)
    output.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fused.parameters())


@pytest.mark.parametrize(
    "backends, words", [(["FAST"], "'FAST' is unknown"), (["FLASH_ATTENTION"], "supports no mask.*EFFICIENT_ATTENTION")]
)
def test_unsuitable_backends_are_refused(backends, words):
    with pytest.raises(ValueError, match=words):
        small_nemo_encoder(use_pytorch_sdpa=True, use_pytorch_sdpa_backends=backends)


def test_a_loaded_model_switches_to_local_attention_with_its_weights():
    x, lengths = features(2, 201), torch.tensor([201, 150])
    made, masked = small_nemo_encoder(), small_nemo_encoder(att_context_size=[6, 4])
    masked.load_state_dict(made.state_dict())
    made.change_attention_model("rel_pos_local_attn", [6, 4])
    (output, lengths_out), (expected, _) = made(audio_signal=x, length=lengths), masked(audio_signal=x, length=lengths)
    assert_close(valid(output, lengths_out), valid(expected, lengths_out), atol=1e-5, rtol=0)
    assert made.layers[0].self_attention_model == "rel_pos_local_attn"
    made.change_attention_model("rel_pos", [-1, -1])
    assert_close(
        made(audio_signal=x, length=lengths), small_nemo_encoder()(audio_signal=x, length=lengths), atol=0, rtol=0
    )
    with pytest.raises(ValueError, match="needs a window"):
        made.change_attention_model("rel_pos_local_attn")
    assert made.layers[0].self_attention_model == "rel_pos"


def test_tied_biases_stay_tied_when_attention_changes():
    made = small_nemo_encoder(untie_biases=False)
    made.change_attention_model("rel_pos_local_attn", [6, 4])
    assert len({id(layer.self_attn.pos_bias_u) for layer in made.layers}) == 1


def test_a_size_that_training_does_not_draw_gets_a_warning(monkeypatch):
    warned = []
    monkeypatch.setattr(nemo_squeezeformer.integration.encoder.logging, "warning", warned.append)
    made = small_nemo_encoder(att_context_style="chunked_limited", att_context_size=[[8, 3], [4, 1]])
    made.set_default_att_context_size([4, 1])
    assert made.att_context_size == [4, 1] and not warned
    made.set_default_att_context_size([4, 3])
    assert made.att_context_size == [4, 3] and "[4, 3] is not in [[8, 3], [4, 1]]" in warned[0]
