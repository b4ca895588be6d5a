"""Tests that a NeMo recipe for ConformerEncoder works if only ``_target_`` changes, with all its arguments."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from hydra.errors import InstantiationException
from nemo.collections.asr.models import ASRModel, EncDecCTCModelBPE
from nemo.collections.asr.modules import ConformerEncoder
from nemo.core.classes.common import Serialization
from nemo.utils.exp_manager import exp_manager
from nemo.utils.trainer_utils import resolve_trainer_cfg
from omegaconf import OmegaConf
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder
from nemo_squeezeformer.integration import nemo_versions
from nemo_squeezeformer.training.recipes import compose
from tests.samples import next_nemo
from tests.samples.asr_models import CLASSES, asr_model
from tests.samples.conformer_recipes import NEW_IN_3, RECIPES, parameters, recipe
from tests.samples.encoders import features
from tests.samples.model_types.model_type import tokenized
from tests.samples.speech import write_manifest

OURS = "nemo_squeezeformer.SqueezeformerEncoder"
NEMOS = "nemo.collections.asr.modules.ConformerEncoder"
LITTLE = ("batch_size=2", "num_workers=0", "pin_memory=false")
# None means ``dropout``, which is 0.1 in both encoders, and "regular" in an encoder without streaming.
DIFFERING = {"subsampling", "dropout_pre_encoder", "att_context_style"}


def test_the_encoder_has_every_argument_of_conformer_encoder_with_the_same_default():
    theirs, ours = parameters(ConformerEncoder), parameters(SqueezeformerEncoder)
    assert len(theirs) >= 38 and set(theirs) | NEW_IN_3 <= set(ours)
    differing = {name for name, parameter in theirs.items() if ours[name].default != parameter.default}
    assert differing == DIFFERING
    assert SqueezeformerEncoder(feat_in=8, n_layers=1, d_model=8).contexts.style == "regular"
    assert ours["dropout"].default == theirs["dropout_pre_encoder"].default == 0.1
    documented = SqueezeformerEncoder.__doc__.partition("Args:")[2]
    assert not [name for name in ours if name != "self" and name not in documented]


def test_the_encoder_has_every_argument_of_the_next_conformer_encoder_with_the_same_default():
    theirs, ours = next_nemo.DEFAULTS, parameters(SqueezeformerEncoder)
    assert set(theirs) | set(next_nemo.REQUIRED) <= set(ours) and next_nemo.VERSION == nemo_versions.KNOWN
    assert {name for name, default in theirs.items() if ours[name].default != default} == DIFFERING
    assert not [name for name in next_nemo.REQUIRED if ours[name].default is not ours[name].empty]
    installed = parameters(ConformerEncoder)
    assert not set(installed) - set(theirs) - set(next_nemo.REQUIRED)  # the list also has all older arguments
    assert {name: each.default for name, each in installed.items() if name in theirs} == {
        name: default for name, default in theirs.items() if name in installed
    }


def test_a_recipe_of_the_next_nemo_trains_with_only_the_target_changed(tmp_path):
    small = ["d_model=32", "n_layers=4", "n_heads=4", "subsampling_conv_channels=16"]
    on_a_cpu = ["devices=1", "accelerator=cpu", "strategy=auto", "max_epochs=1", "enable_progress_bar=false"]
    given = [
        *tokenized(tmp_path),
        *[f"model.encoder.{setting}" for setting in small],
        *[f"trainer.{setting}" for setting in on_a_cpu],
        "+trainer.limit_train_batches=1",
        *[f"model.{split}.{setting}" for split in ("train_ds", "validation_ds") for setting in LITTLE],
        f"exp_manager.exp_dir={tmp_path / 'exp'}",
        "exp_manager.create_tensorboard_logger=false",
    ]
    theirs = compose(str(next_nemo.RECIPE), given)
    if missing := set(next_nemo.NEW) - set(parameters(ConformerEncoder)):
        with pytest.raises(InstantiationException, match=f"unexpected keyword argument '({'|'.join(missing)})'"):
            EncDecCTCModelBPE(theirs.model)
    ours = theirs.copy()
    ours.model.encoder._target_ = OURS
    trainer = pl.Trainer(**resolve_trainer_cfg(ours.trainer))
    exp_manager(trainer, ours.exp_manager)
    model = EncDecCTCModelBPE(ours.model, trainer=trainer)
    trainer.fit(model)
    assert trainer.global_step == 1 and trainer.callback_metrics["val_wer"].isfinite()
    moments = trainer.optimizers[0].state
    assert not [name for name, w in model.encoder.named_parameters() if not moments[w]["exp_avg_sq"].any()]
    settings = model.encoder.attention
    assert (settings.self_attention_model, settings.rope_base, settings.rotary_fraction) == ("rope", 10000.0, 0.5)
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    assert type(ASRModel.restore_from(str(saved), map_location="cpu").encoder) is SqueezeformerEncoder


@pytest.mark.parametrize("name", RECIPES)
def test_both_encoders_accept_the_settings_of_a_recipe_and_give_the_same_number_of_frames(name):
    x, lengths = features(2, 201), torch.tensor([201, 150])
    shapes = []
    for target in (NEMOS, OURS):
        config = OmegaConf.create({"_target_": target, "feat_in": 20} | recipe(name))
        encoder = Serialization.from_config_dict(config)
        assert f"{type(encoder).__module__}.{type(encoder).__name__}".split(".")[-1] == target.split(".")[-1]
        output, shorter = encoder.train()(audio_signal=x, length=lengths)
        output.square().mean().backward()
        with torch.no_grad():
            encoder.eval()(audio_signal=x, length=lengths)
        shapes.append((tuple(output.shape), shorter.tolist()))
    assert shapes[0] == shapes[1]


WHOLE = [
    ("ctc", "conformer ctc, hat, hybrid"),
    ("ctc", "fastconformer long"),
    ("ctc", "fastconformer unified"),
    ("transducer", "conformer transducer streaming"),
    ("hybrid", "fastconformer streaming"),
]


@pytest.mark.parametrize("kind, name", WHOLE)
def test_a_whole_model_trains_validates_and_restores_with_only_the_target_changed(tmp_path, kind, name):
    manifest = write_manifest(tmp_path, utterances=2)
    config = asr_model(kind).cfg
    OmegaConf.set_struct(config, False)
    data = {"manifest_filepath": str(manifest), "sample_rate": 16000, "batch_size": 2, "labels": config.labels}
    config.train_ds = data | {"shuffle": False, "num_workers": 0}
    config.validation_ds = data | {"shuffle": False, "num_workers": 0}
    config.encoder = {"_target_": NEMOS, "feat_in": "${model.preprocessor.features}"} | recipe(name)
    config.encoder.feat_in = config.preprocessor.features
    CLASSES[kind, "char"](config)
    config.encoder._target_ = OURS
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    model = CLASSES[kind, "char"](config, trainer=trainer)
    before = {name: parameter.clone() for name, parameter in model.encoder.named_parameters()}
    trainer.fit(model)
    assert trainer.global_step == 1 and trainer.callback_metrics["val_loss"].isfinite()
    assert any((parameter - before[name]).abs().max() > 0 for name, parameter in model.encoder.named_parameters())

    model.save_to(str(tmp_path / "model.nemo"))
    restored = ASRModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert type(restored.encoder) is SqueezeformerEncoder
    x, lengths = features(2, 101, channels=80), torch.tensor([101, 60])
    with torch.no_grad():
        expected, _ = model.eval().encoder(audio_signal=x, length=lengths)
        assert_close(restored.encoder(audio_signal=x, length=lengths)[0], expected, atol=0, rtol=0)


@pytest.mark.parametrize("sizes, reduced", [([[70, 13], [72, 5]], True), ([[70, 13], [70, 6]], False)])
def test_auto_selects_a_temporal_unet_if_it_does_not_cut_chunks(sizes, reduced):
    encoder = SqueezeformerEncoder(feat_in=20, **recipe("fastconformer streaming", att_context_size=sizes))
    assert (encoder.time_reduce_layer is not None) == reduced
    if not reduced:
        with pytest.raises(ValueError, match="nearest"):
            SqueezeformerEncoder(
                feat_in=20, **recipe("fastconformer streaming", att_context_size=sizes, time_reduce_idx=1)
            )


def test_settings_are_saved_and_restored_by_nemo(tmp_path: Path):
    path = tmp_path / "config.yaml"
    OmegaConf.save(
        OmegaConf.create({"_target_": OURS, "feat_in": 20} | recipe("fastconformer streaming, several")), path
    )
    made = Serialization.from_config_dict(OmegaConf.load(path))
    assert made.att_context_size_all == [[70, 13], [72, 5], [70, 1]] and made.att_context_size == [70, 13]
