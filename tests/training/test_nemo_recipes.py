"""Recipes of NeMo: they name no class of a model, and have no section ``schedule``."""

from __future__ import annotations

import pytest
import yaml

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import recipes, schedule
from nemo_squeezeformer.training.mistakes.nemo_recipes import CLASSES, MODELS, model_of
from tests.samples.model_types.model_type import spoken
from tests.samples.plain_recipes import plain

KNOWN = {MODELS + name for name in CLASSES.values()}


def test_every_recipe_of_a_known_class_names_this_class_also_without_its_name():
    found = set()
    for name in recipes.every_recipe():
        cfg = plain(name)
        expected = str(cfg.get("model_target") or cfg.model.get("target"))
        assert model_of(cfg) == (expected if expected in KNOWN else None), name
        found.add(expected)
    assert found > KNOWN


def write_recipe(folder, **changes) -> str:
    """Write a recipe with the sections of NeMo's character-based Conformer recipe. Return its path."""
    modules = "nemo.collections.asr.modules."
    labels = [" ", *"efghinorstuvwxz"]
    data = {"manifest_filepath": None, "labels": labels, "sample_rate": 16000, "batch_size": 2, "num_workers": 0}
    model = {
        "sample_rate": 16000,
        "labels": labels,
        "train_ds": data | {"shuffle": True, "min_duration": 0.1, "max_duration": 16.7},
        "validation_ds": data | {"shuffle": False},
        "preprocessor": {"_target_": f"{modules}AudioToMelSpectrogramPreprocessor", "features": 80, "n_fft": 512},
        "encoder": {
            "_target_": f"{modules}ConformerEncoder",
            "feat_in": 80,
            "n_layers": 1,
            "d_model": 16,
            "n_heads": 4,
        },
        "decoder": {"_target_": f"{modules}ConvASRDecoder", "feat_in": None, "num_classes": -1, "vocabulary": labels},
        "optim": {
            "name": "adamw",
            "lr": 2.0,
            "sched": {"name": "NoamAnnealing", "d_model": 16, "warmup_steps": 10, "warmup_ratio": None, "min_lr": 1e-6},
        },
    }
    trainer = {"devices": 1, "max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0, "logger": False}
    manager = {"exp_dir": f"{folder}/exp", "name": "NeMos", "create_tensorboard_logger": False}
    manager["checkpoint_callback_params"] = {"monitor": "val_wer", "mode": "min", "always_save_nemo": True}
    written = {"name": "NeMos", "model": model, "trainer": trainer | {"enable_checkpointing": False}}
    path = folder / "conformer_ctc_char.yaml"
    path.write_text(yaml.safe_dump(written | {"exp_manager": manager} | changes))
    return str(path)


def test_a_recipe_of_nemo_trains_without_further_settings_and_the_end_names_its_files(tmp_path, caplog):
    from nemo_squeezeformer.__main__ import main

    assert main(["train", write_recipe(tmp_path), *spoken(tmp_path)]) == 0
    (saved,) = (tmp_path / "exp" / "NeMos").rglob("NeMos.nemo")
    assert "Best val_wer: 100.00% (NeMos--val_wer=" in caplog.text
    assert f"The model of the last step is {saved}" in caplog.text


def test_a_recipe_of_nemo_is_announced_without_a_plan_of_ours(tmp_path):
    cfg = recipes.compose(write_recipe(tmp_path), spoken(tmp_path))
    assert schedule.summary(cfg).startswith(
        "Learning rate of the recipe: model.optim.lr=2.0 and NoamAnnealing, for a global batch of 2 "
    )


def test_a_recipe_that_is_not_yaml_is_named_with_the_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {manifest_filepath: ???}\n")
    with pytest.raises(UserError, match=r"mine.yaml is not valid YAML \(.*line 1"):
        recipes.compose(str(tmp_path / "mine.yaml"))
