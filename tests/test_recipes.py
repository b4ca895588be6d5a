"""Every recipe is composed in every size, built, and trained; what it saves stands on its own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from nemo_squeezeformer import core
from nemo_squeezeformer.commands.tokenizer import train_tokenizer
from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.recipes import check, compose, recipes
from nemo_squeezeformer.sizes import sizes
from tests.speech import write_manifest

SMALL = [
    "size=tiny",
    "model.encoder.d_model=32",
    "model.encoder.n_layers=4",
    "model.encoder.time_reduce_idx=1",
    "model.train_ds.batch_size=2",
    "model.train_ds.num_workers=0",
    "model.validation_ds.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.enable_progress_bar=false",
    "exp_manager.create_tensorboard_logger=false",
]
# What users of NeMo's CTC recipes override, and what tools that edit recipes look for.
NEMO_KEYS = """
    name model.sample_rate model.log_prediction model.ctc_reduction model.skip_nan_grad
    model.train_ds.manifest_filepath model.train_ds.batch_size model.train_ds.is_tarred
    model.train_ds.tarred_audio_filepaths model.train_ds.bucketing_batch_size model.validation_ds.manifest_filepath
    model.test_ds.manifest_filepath model.preprocessor.features model.spec_augment.time_masks model.encoder.d_model
    model.encoder.subsampling_factor model.encoder.att_context_size model.decoder.vocabulary
    model.interctc.loss_weights model.interctc.apply_at_layers model.optim.lr model.optim.sched.warmup_steps
    trainer.devices trainer.num_nodes trainer.max_epochs trainer.max_steps trainer.accelerator trainer.strategy
    trainer.accumulate_grad_batches trainer.gradient_clip_val trainer.precision trainer.sync_batchnorm
    exp_manager.exp_dir exp_manager.name exp_manager.checkpoint_callback_params.always_save_nemo
    exp_manager.resume_if_exists exp_manager.create_wandb_logger
"""


def keys_of(tree: dict, prefix: str = "") -> set[str]:
    """Dotted names of all keys, those of sections too."""
    keys = {f"{prefix}{key}" for key in tree}
    return keys.union(*(keys_of(sub, f"{prefix}{key}.") for key, sub in tree.items() if isinstance(sub, dict)))


def overrides_for(recipe: str, folder: Path) -> list[str]:
    """Data, a tokenizer where the recipe has one, and an experiment folder, all under ``folder``."""
    train_set, dev_set = write_manifest(folder), write_manifest(folder, utterances=2, name="dev")
    given = [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]
    if recipe.endswith("bpe"):
        train_tokenizer([str(train_set)], 24, str(folder / "tokenizer"))
        given.append(f"model.tokenizer.dir={folder / 'tokenizer'}")
    return [*SMALL, *given, f"exp_manager.exp_dir={folder / 'exp'}"]


@pytest.mark.parametrize("size", sizes())
@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_composes_in_every_size_and_describes_that_encoder(recipe, size):
    cfg = compose(recipe, [f"size={size}"])
    assert [key for key in NEMO_KEYS.split() if key not in keys_of(OmegaConf.to_container(cfg, resolve=False))] == []
    settings = OmegaConf.to_container(cfg.model.encoder, resolve=True)
    assert settings.pop("_target_") == "nemo_squeezeformer.SqueezeformerEncoder"
    with torch.device("meta"):
        encoder = core.SqueezeformerEncoder(**settings)
        same = core.SqueezeformerEncoder(feat_in=80, **sizes()[size].encoder)
    assert encoder.state_dict().keys() == same.state_dict().keys()
    assert cfg.model.spec_augment.time_masks == sizes()[size].time_masks
    OmegaConf.to_yaml(cfg, resolve=True)


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_trains_and_the_saved_model_needs_neither_us_nor_the_recipe_for_its_numbers(recipe, tmp_path):
    model = train(compose(recipe, [*overrides_for(recipe, tmp_path), "trainer.max_epochs=2"]))
    assert model.trainer.global_step == 8 == model.trainer.estimated_stepping_batches
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    with tarfile.open(saved) as archive:
        (name,) = [name for name in archive.getnames() if name.endswith("model_config.yaml")]
        text = archive.extractfile(name).read().decode()
    assert "${" not in text
    optim = yaml.safe_load(text)["optim"]
    assert (optim["sched"]["warmup_steps"], optim["sched"]["hold_steps"]) == (1, 2)
    peak_lr = 1e-3 if recipe.endswith("small") else 2e-3 * (2 / 1024) ** 0.5
    assert float(optim["lr"]) == pytest.approx(peak_lr, rel=1e-3)

    restored = type(model).restore_from(saved, map_location="cpu").eval()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[name], weight, rtol=0, atol=0)
    assert len(restored.transcribe([str(tmp_path / "dev_0.wav")], verbose=False)) == 1


def test_a_recipe_of_ones_own_may_build_on_ours(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [squeezeformer_ctc_char, _self_]\nname: mine\nmodel: {optim: {weight_decay: 0.5}}\n"
    )
    cfg = compose(str(tmp_path / "mine.yaml"), ["size=xs"])
    assert (cfg.name, cfg.model.optim.weight_decay, cfg.model.encoder.d_model) == ("mine", 0.5, 144)


def test_any_program_with_nemos_hydra_runner_finds_the_recipes_without_a_path(tmp_path):
    (tmp_path / "program.py").write_text(
        "from nemo.core.config import hydra_runner\n"
        "@hydra_runner(config_path='.', config_name='none')\n"
        "def main(cfg):\n"
        "    print('d_model', cfg.model.encoder.d_model, 'warm-up', cfg.model.optim.sched.warmup_steps)\n"
        "main()\n"
    )
    arguments = ["--config-name=squeezeformer_ctc_bpe", "size=m", "trainer.max_steps=100"]
    done = subprocess.run(
        [sys.executable, "program.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "d_model 324 warm-up 4" in done.stdout
    assert (done.stdout + done.stderr).count("learning-rate schedule") == 1


@pytest.mark.parametrize(
    "recipe, overrides, message",
    [
        ("squeezeformer_ctc", [], "no recipe squeezeformer_ctc: .*squeezeformer_ctc_bpe"),
        ("mine/none.yaml", [], "no recipe mine/none.yaml"),
        ("squeezeformer_ctc_bpe", ["size=huge"], "size/huge"),
        ("squeezeformer_ctc_bpe", ["modle.x=1"], "modle"),
    ],
)
def test_a_recipe_or_override_that_does_not_exist_is_named(recipe, overrides, message):
    with pytest.raises(UserError, match=message):
        compose(recipe, overrides)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            "model.tokenizer.dir=/not/there",
            r"/not/there has no tokenizer.model; .*nemo-squeezeformer tokenizer .*train.json",
        ),
        ("model.tokenizer.dir=???", r"model.tokenizer.dir is not set; .*nemo-squeezeformer tokenizer"),
        ("model.validation_ds.manifest_filepath=???", r"model.validation_ds.manifest_filepath is not set"),
        ("model.test_ds.manifest_filepath=/not/test.json", r"model.test_ds.manifest_filepath=/not/test.json"),
    ],
)
def test_what_training_needs_from_disk_is_checked_first(tmp_path, change, message):
    given = overrides_for("squeezeformer_ctc_bpe", tmp_path)
    check(compose("squeezeformer_ctc_bpe", given))
    with pytest.raises(UserError, match=message):
        check(compose("squeezeformer_ctc_bpe", [*given, change]))


def test_unreadable_audio_stops_training_unless_the_check_is_skipped(tmp_path):
    cfg = compose("squeezeformer_ctc_char", overrides_for("squeezeformer_ctc_char", tmp_path))
    (tmp_path / "train_3.wav").write_bytes(b"not audio")
    with pytest.raises(UserError, match="train_3.wav"):
        check(cfg)
    check(cfg, audio=False)


def test_null_labels_are_the_characters_of_the_training_text(tmp_path):
    cfg = compose("squeezeformer_ctc_char", [*overrides_for("squeezeformer_ctc_char", tmp_path), "model.labels=null"])
    check(cfg)
    text = "".join(yaml.safe_load(line)["text"] for line in (tmp_path / "train.json").read_text().splitlines())
    assert list(cfg.model.decoder.vocabulary) == list(cfg.model.train_ds.labels) == sorted(set(text))
