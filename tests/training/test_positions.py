"""Tests of the group ``positions``: ``positions=rope`` gives rotary positions in every recipe."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from nemo_squeezeformer import core
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.recipes import compose, every_recipe
from tests.samples.model_types.model_type import ModelType, transcribed
from tests.samples.model_types.recognition import MODEL_TYPES


@cache
def tried(settings: str) -> core.SqueezeformerEncoder:
    """Return the encoder with the settings in this JSON text, after a check of its outputs. Many recipes share it."""
    torch.manual_seed(0)
    encoder = core.SqueezeformerEncoder(**json.loads(settings)).eval()
    features, lengths = torch.randn(2, encoder.feat_in, 201), torch.tensor([201, 150])
    with torch.no_grad():
        output, frames = encoder(features, lengths)
        alone, _ = encoder(features[1:, :, :150], lengths[1:])
    assert output.isfinite().all() and output.std() > 0.1
    torch.testing.assert_close(output[1:, :, : frames[1]], alone[..., : frames[1]], atol=1e-4, rtol=0)
    return encoder


@pytest.mark.parametrize("recipe", every_recipe())
def test_every_recipe_can_have_rotary_positions(recipe):
    cfg = compose(recipe, ["size=tiny", "positions=rope"])
    settings = OmegaConf.to_container(cfg.model.encoder, resolve=True)
    assert settings.pop("_target_") == "nemo_squeezeformer.SqueezeformerEncoder"
    encoder = tried(json.dumps(settings, sort_keys=True))
    assert encoder.attention.self_attention_model == "rope"
    assert not [name for name in encoder.state_dict() if "linear_pos" in name or "pos_bias" in name]
    if settings.get("streaming"):
        assert len(encoder.contexts.sizes) == 5
        encoder.init_state(2)


def test_a_recipe_with_rotary_positions_trains_and_its_file_keeps_the_positions(tmp_path):
    kind: ModelType = MODEL_TYPES["EncDecCTCModel"]
    model = kind.train(compose("squeezeformer_ctc_char", [*kind.overrides(tmp_path), "positions=rope"]))
    moments = model.trainer.optimizers[0].state
    assert all(moments[weight]["exp_avg_sq"].any() for weight in model.encoder.parameters())
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    restored = ASRModel.restore_from(str(saved), map_location="cpu").eval()
    assert restored.cfg.encoder.self_attention_model == "rope" and restored.cfg.encoder.rope_base == 10000
    expected, found = transcribed(model.eval(), tmp_path), transcribed(restored, tmp_path)
    torch.testing.assert_close(found["encoded"], expected["encoded"])


@pytest.mark.parametrize("setting", ["rel_pos", "abs_pos", "rel_pos_local_attn"])
def test_another_setting_that_hides_the_choice_is_refused(setting, tmp_path):
    hides = f"model.encoder.self_attention_model={setting}"
    assert compose("squeezeformer_ctc_char", [hides]).model.encoder.self_attention_model == setting
    with pytest.raises(UserError, match=f"^positions=rope has no effect, .*{hides}.*att_context_size"):
        compose("squeezeformer_ctc_char", ["positions=rope", hides])
    (tmp_path / "mine.yaml").write_text(
        f"defaults: [squeezeformer_ctc_char, _self_]\nmodel: {{encoder: {{self_attention_model: {setting}}}}}\n"
    )
    with pytest.raises(UserError, match="^positions=rope has no effect"):
        compose(str(tmp_path / "mine.yaml"), ["positions=rope"])


def test_the_default_positions_are_relative():
    usual, chosen = compose("squeezeformer_ctc_char"), compose("squeezeformer_ctc_char", ["positions=rel"])
    assert usual == chosen and usual.model.encoder.self_attention_model == "rel_pos"
    assert "rope_base" not in usual.model.encoder


def test_the_fraction_and_the_base_can_be_changed():
    given = ["positions=rope", "model.encoder.rotary_fraction=0.5", "model.encoder.rope_base=500"]
    encoder = compose("squeezeformer_ctc_char", given).model.encoder
    assert (encoder.self_attention_model, encoder.rotary_fraction, encoder.rope_base) == ("rope", 0.5, 500)
