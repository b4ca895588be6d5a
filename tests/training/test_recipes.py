"""Tests of finding, composing and checking recipes. test_every_recipe.py trains each recipe."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import recipes, schedule
from nemo_squeezeformer.training.recipes import compose, fill_labels
from tests.samples.model_types import MODEL_TYPES

BPE, CHARACTERS = MODEL_TYPES["EncDecCTCModelBPE"], MODEL_TYPES["EncDecCTCModel"]


def test_a_users_recipe_can_extend_a_packaged_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [squeezeformer_ctc_char, _self_]\nname: mine\nmodel: {optim: {weight_decay: 0.5}}\n"
    )
    cfg = compose(str(tmp_path / "mine.yaml"), ["size=xs"])
    assert (cfg.name, cfg.model.optim.weight_decay, cfg.model.encoder.d_model) == ("mine", 0.5, 144)


def test_a_program_with_nemos_hydra_runner_finds_the_recipes_without_a_path(tmp_path):
    (tmp_path / "program.py").write_text(
        "from nemo.core.config import hydra_runner\n"
        "@hydra_runner(config_path='.', config_name='none')\n"
        "def main(cfg):\n"
        "    optim = cfg.model.optim\n"
        "    print('d_model', cfg.model.encoder.d_model, 'warm-up', optim.sched.warmup_ratio, optim.lr)\n"
        "main()\n"
    )
    arguments = ["--config-name=squeezeformer_ctc_bpe", "size=m", "trainer.accelerator=cpu", "trainer.devices=1"]
    done = subprocess.run(
        [sys.executable, "program.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "d_model 324 warm-up 0.04 0.0001875" in done.stdout


@pytest.mark.parametrize(
    "recipe, overrides, message",
    [
        ("squeezeformer_ctc", [], "no recipe squeezeformer_ctc: did you mean squeezeformer_ctc_"),
        ("mine/none.yaml", [], "no recipe mine/none.yaml: there is no such file"),
        ("squeezeformer_ctc_bpe", ["size=huge"], "size/huge"),
        ("squeezeformer_ctc_bpe", ["modle.x=1"], "modle"),
    ],
)
def test_a_recipe_or_override_that_does_not_exist_is_named(recipe, overrides, message):
    with pytest.raises(UserError, match=message):
        compose(recipe, overrides)


def test_a_file_that_hydra_does_not_read_because_of_its_ending_is_named(tmp_path):
    (tmp_path / "mine.yml").write_text("defaults:\n  - squeezeformer_ctc_char\n")
    with pytest.raises(UserError, match=r"mine.yml: Hydra reads only files that end with .yaml; rename the file"):
        compose(str(tmp_path / "mine.yml"))


def check(cfg, audio=True):
    """Check a recipe as ``train`` does."""
    recipes.check_names(cfg)
    recipes.check(cfg, audio=audio)


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
def test_missing_files_are_reported_before_training(tmp_path, change, message):
    given = BPE.overrides(tmp_path)
    check(compose("squeezeformer_ctc_bpe", given))
    with pytest.raises(UserError, match=message):
        check(compose("squeezeformer_ctc_bpe", [*given, change]))


def test_a_folder_with_only_a_sentencepiece_model_is_refused(tmp_path):
    cfg = compose("squeezeformer_ctc_bpe", BPE.overrides(tmp_path))
    folder = Path(cfg.model.tokenizer.dir)
    (folder / "vocab.txt").unlink()
    with pytest.raises(
        UserError, match=r"has tokenizer.model but no vocab.txt.*: nemo-squeezeformer (tokenizer .*)"
    ) as error:
        check(cfg)
    command = str(error.value).split("nemo-squeezeformer ")[1]
    assert main(shlex.split(command)) == 0
    cfg.model.tokenizer.dir = shlex.split(command)[-1]
    check(cfg)


def test_missing_labels_are_reported(tmp_path):
    given = [*CHARACTERS.overrides(tmp_path), "model.labels=???"]
    cfg = compose("squeezeformer_ctc_char", given)
    schedule.check(cfg)
    with pytest.raises(UserError, match="model.labels is not set; add model.labels="):
        check(cfg)


def test_each_of_several_tokenizers_is_checked(tmp_path):
    languages = f"{{en: {{dir: {tmp_path}/tokenizer, type: bpe}}, de: {{dir: /not/there, type: bpe}}}}"
    several = ["model.tokenizer.type=agg", f"+model.tokenizer.langs={languages}"]
    cfg = compose("squeezeformer_ctc_bpe", [*BPE.overrides(tmp_path), *several])
    with pytest.raises(UserError, match="model.tokenizer.langs.de.dir=/not/there has no tokenizer.model"):
        check(cfg)


def test_unreadable_audio_stops_training_unless_the_check_is_skipped(tmp_path):
    cfg = compose("squeezeformer_ctc_char", CHARACTERS.overrides(tmp_path))
    (tmp_path / "train_3.wav").write_bytes(b"not audio")
    with pytest.raises(UserError, match="train_3.wav"):
        check(cfg)
    check(cfg, audio=False)


def test_compiled_layers_are_refused_in_training_on_a_cpu(tmp_path):
    cfg = compose("squeezeformer_ctc_char", [*CHARACTERS.overrides(tmp_path), "model.encoder.compile=true"])
    with pytest.raises(UserError, match="model.encoder.compile=true with trainer.accelerator=cpu.*compile=false"):
        check(cfg)
    cfg.model.encoder.compile = False
    check(cfg)


def test_null_labels_are_the_characters_of_the_training_text(tmp_path):
    cfg = compose("squeezeformer_ctc_char", [*CHARACTERS.overrides(tmp_path), "model.labels=null"])
    check(cfg)
    assert cfg.model.labels is None
    fill_labels(cfg)
    text = "".join(json.loads(line)["text"] for line in (tmp_path / "train.json").read_text().splitlines())
    assert list(cfg.model.decoder.vocabulary) == list(cfg.model.train_ds.labels) == sorted(set(text))
