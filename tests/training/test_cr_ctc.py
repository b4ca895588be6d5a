"""Tests of ``loss=cr_ctc``: every recipe with a CTC decoder trains with it, and every other recipe refuses it."""

from __future__ import annotations

import math

import lightning.pytorch as lightning
import pytest
import torch
from nemo.collections.asr.models import ASRModel
from nemo.utils.trainer_utils import resolve_trainer_cfg
from omegaconf import OmegaConf

from nemo_squeezeformer.commands.training import start_from
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.callbacks import consistent_views
from nemo_squeezeformer.training import schedule
from nemo_squeezeformer.training.recipes import compose, every_recipe, target
from tests.samples.model_types import model_class, model_type
from tests.samples.model_types.model_type import SMALL, transcribed
from tests.training.test_groups import slow_unless
from tests.training.test_scale_data import lhotse

WITH_CTC = [name for name in every_recipe() if "ctc" in name or name.startswith("ablation/")]
WITHOUT_CTC = [name for name in every_recipe() if name not in WITH_CTC]
FAST = "squeezeformer_ctc_char"
KINDS = [  # a recipe of each class, TDT, and the streaming recipes
    "squeezeformer_ctc_bpe",
    "squeezeformer_ctc_bpe_original",
    "squeezeformer_ctc_bpe_streaming",
    "squeezeformer_hybrid_tdt_ctc_bpe",
    "squeezeformer_hybrid_transducer_ctc_bpe_eou",
    "squeezeformer_hybrid_transducer_ctc_bpe_prompt",
    "squeezeformer_hybrid_transducer_ctc_bpe_streaming",
    "squeezeformer_hybrid_transducer_ctc_char",
]


@pytest.mark.parametrize("recipe", slow_unless([FAST, "squeezeformer_hybrid_tdt_ctc_bpe"], WITH_CTC))
def test_a_recipe_with_a_ctc_decoder_has_more_masks_and_the_weight_of_the_paper(recipe):
    usual, chosen = (OmegaConf.to_container(compose(recipe, ["size=m", *loss])) for loss in ([], ["loss=cr_ctc"]))
    assert "consistency" not in usual and chosen.pop("consistency") == {"weight": 0.2}
    masks = OmegaConf.create(chosen).model.spec_augment.time_masks
    assert (usual["spec_augment"]["time_masks"], masks) == (7, 17)
    chosen["model"]["spec_augment"]["time_masks"] = usual["model"]["spec_augment"]["time_masks"]
    assert chosen["trainer"].pop("callbacks")
    assert usual == chosen


@pytest.mark.parametrize("recipe", slow_unless(["squeezeformer_transducer_char", "squeezeformer_aed"], WITHOUT_CTC))
def test_a_recipe_without_a_ctc_decoder_is_refused(recipe):
    with pytest.raises(UserError, match=f"^recipe {recipe}: the group loss is for recipes with a CTC decoder: "):
        compose(recipe, ["loss=cr_ctc"])
    with pytest.raises(UserError, match="^loss=cr_ctc: the group loss is for recipes with a CTC decoder"):
        schedule.check(compose(recipe, ["+loss=cr_ctc", "trainer.max_steps=10"]))


def test_the_number_of_time_masks_can_be_set():
    assert compose(FAST, ["loss=cr_ctc", "model.spec_augment.time_masks=3"]).model.spec_augment.time_masks == 3


def test_a_recipe_without_a_size_needs_the_number_of_time_masks(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [loss: cr_ctc]\nmodel: {}\n")
    with pytest.raises(Exception, match="add model.spec_augment.time_masks=NUMBER"):
        _ = compose(str(tmp_path / "mine.yaml")).model.spec_augment.time_masks


def test_a_run_trains_logs_the_term_and_writes_a_usual_file(tmp_path):
    kind = model_type(FAST, "EncDecCTCModel")
    given = ["loss=cr_ctc", "trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2", "trainer.max_steps=1"]
    model = kind.train(compose(FAST, [*kind.overrides(tmp_path), *given]))
    assert model.trainer.global_step == 1
    moments = model.trainer.optimizers[0].state
    assert all(moments[weight]["exp_avg_sq"].any() for weight in model.parameters())
    assert float(model.trainer.callback_metrics["train_consistency_loss"]) > 0.01
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    restored = ASRModel.restore_from(str(saved), map_location="cpu").eval()
    assert list(restored.state_dict()) == list(model.state_dict()) and "consistency" not in restored.cfg
    expected, found = transcribed(model.eval(), tmp_path), transcribed(restored, tmp_path)
    torch.testing.assert_close(found["encoded"], expected["encoded"])
    tuned = start_from.recipe_of(str(saved), ["loss=cr_ctc"], tmp_path)[0]  # fine-tuning keeps the masks of the file
    assert tuned.consistency.weight == 0.2 and tuned.model.spec_augment.time_masks == 5


def test_the_trainer_of_nemos_scripts_has_the_callback_also_with_another_weight():
    cfg = compose(FAST, [*SMALL, "loss=cr_ctc", "consistency.weight=0.1"])
    trainer = lightning.Trainer(**resolve_trainer_cfg(cfg.trainer))
    consistent_views.add_callback(trainer, cfg.consistency)
    assert [each.weight for each in trainer.callbacks if isinstance(each, consistent_views.ConsistentViews)] == [0.1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", KINDS)
def test_every_kind_of_recipe_trains(recipe, tmp_path):
    path = target(compose(recipe))
    if model_class(path) is None:
        pytest.skip(f"this NeMo has no {path}")
    kind = model_type(recipe, path)
    model = kind.train(compose(recipe, [*kind.overrides(tmp_path), "loss=cr_ctc"]))
    assert model.trainer.global_step == 2
    logged = {name: float(value) for name, value in model.trainer.callback_metrics.items()}
    assert math.isfinite(logged["train_loss"]) and logged["train_consistency_loss"] > 0.01
    moments = model.trainer.optimizers[0].state
    assert all(moments[weight]["exp_avg_sq"].any() for weight in model.encoder.parameters())


@pytest.mark.slow
def test_a_run_on_lhotse_data_trains(tmp_path):
    kind = model_type(FAST, "EncDecCTCModel")
    given = [each for each in kind.overrides(tmp_path) if "train_ds" not in each or "num_workers" in each]
    model = kind.train(compose(FAST, [*given, *lhotse(tmp_path), "trainer.max_epochs=-1", "loss=cr_ctc"]))
    assert model.trainer.global_step == 5
    assert float(model.trainer.callback_metrics["train_consistency_loss"]) > 0.01
