"""Tests of every recipe: composing in every size, building, training, saving, and restoring in another process."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from nemo_squeezeformer.analysis.sizes import sizes
from nemo_squeezeformer.training import settings
from nemo_squeezeformer.training.groups import CONF
from nemo_squeezeformer.training.recipes import compose, recipes
from tests.samples.model_types import model_class, model_type
from tests.samples.paths import ROOT


def target_of(recipe: str) -> str:
    """Return the ``model_target`` of a recipe or of the recipe that it extends, without composing the recipe."""
    written = yaml.safe_load((files(CONF) / f"{recipe}.yaml").read_text())
    return written.get("model_target") or target_of(next(base for base in written["defaults"] if base in recipes()))


TARGETS = {name: target_of(name) for name in recipes()}
TYPES = {name: model_type(name, target) for name, target in TARGETS.items()}


@dataclass
class Tried:
    """A model of a recipe and its outputs in this process."""

    cfg: Any
    folder: Path
    model: Any
    saved: Path
    output: dict[str, Any]


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A function that trains the model of a recipe and returns it. The results are cached."""
    found: dict[str, Tried | Exception] = {}

    def attempt(recipe: str) -> Tried:
        kind, folder = TYPES[recipe], tmp_path_factory.mktemp(recipe)
        torch.manual_seed(0)
        cfg = compose(recipe, kind.overrides(folder))
        model = kind.train(cfg)
        (saved,) = (folder / "exp").rglob("*.nemo")
        return Tried(cfg, folder, model, saved, kind.output(model.eval(), folder))

    def once(recipe: str) -> Tried:
        if model_class(TARGETS[recipe]) is None:
            pytest.skip(f"this NeMo has no {TARGETS[recipe]}")
        if recipe not in found:
            try:
                found[recipe] = attempt(recipe)
            except Exception as error:
                found[recipe] = error
        if isinstance(result := found[recipe], Exception):
            raise result
        return result

    return once


@pytest.fixture(scope="module")
def restored(request, tried, tmp_path_factory):
    """The weights and outputs of all models of the selected tests, by recipe, restored in one other process."""
    here = [item for item in request.session.items if "restored" in getattr(item, "fixturenames", ())]
    jobs = []
    for recipe in dict.fromkeys(item.callspec.params["recipe"] for item in here):
        try:
            done = tried(recipe)
        except (Exception, pytest.skip.Exception):  # the test of this recipe reports the error
            continue
        paths = {"saved": str(done.saved), "folder": str(done.folder)}
        jobs.append({"recipe": recipe, "target": TARGETS[recipe], **paths})
    folder = tmp_path_factory.mktemp("restored")
    (folder / "jobs.json").write_text(json.dumps(jobs))
    arguments = [str(folder / name) for name in ("jobs.json", "outputs.pt")]
    command = [sys.executable, "-m", "tests.training.restore_models", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return torch.load(folder / "outputs.pt", weights_only=True)


def keys_of(tree: dict, prefix: str = "") -> set[str]:
    """Return the dotted names of all keys, including sections."""
    keys = {f"{prefix}{key}" for key in tree}
    return keys.union(*(keys_of(sub, f"{prefix}{key}.") for key, sub in tree.items() if isinstance(sub, dict)))


@pytest.mark.parametrize(
    "size", [size if size == "s" else pytest.param(size, marks=pytest.mark.slow) for size in sizes()]
)
@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_composes_in_every_size_with_the_encoder_of_that_size(recipe, size):
    cfg = compose(recipe, [f"size={size}", "trainer.max_steps=100"])
    tree = OmegaConf.to_container(cfg, resolve=False)
    assert [key for key in TYPES[recipe].keys.split() if key not in keys_of(tree)] == []
    encoder = OmegaConf.to_container(OmegaConf.select(cfg, TYPES[recipe].encoder), resolve=True)
    assert encoder.pop("_target_") == "nemo_squeezeformer.SqueezeformerEncoder"
    published = sizes()[size].encoder | {"time_recovery_idx": encoder["time_recovery_idx"]}
    assert {name: encoder[name] for name in published} == published
    if settings.value(cfg, "model.spec_augment.time_masks"):  # absent or 0: the recipe has no time masks
        assert cfg.model.spec_augment.time_masks == sizes()[size].time_masks
    sched = OmegaConf.to_container(cfg.model.optim, resolve=True)["sched"]
    assert (sched["warmup_steps"], sched["warmup_ratio"]) == (None, 20 / 500)
    if sched["name"] == "NoamHoldAnnealing":
        assert (sched["hold_steps"], sched["hold_ratio"]) == (None, 160 / 500)


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_trains_the_whole_encoder_and_logs_the_metric_of_checkpoints(recipe, tried):
    done = tried(recipe)
    trainer = done.model.trainer
    assert trainer.global_step == trainer.estimated_stepping_batches == 2
    encoder = done.model
    for name in TYPES[recipe].encoder.split(".")[1:]:
        encoder = getattr(encoder, name)
    moments = trainer.optimizers[0].state
    still = [name for name, weight in encoder.named_parameters() if not moments[weight]["exp_avg_sq"].any()]
    assert still == []
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert math.isfinite(logged[done.cfg.exp_manager.checkpoint_callback_params.monitor])
    assert math.isfinite(logged[TYPES[recipe].loss])


@pytest.mark.parametrize("recipe", recipes())
def test_a_saved_model_contains_plain_numbers(recipe, tried):
    done = tried(recipe)
    with tarfile.open(done.saved) as archive:
        (name,) = [name for name in archive.getnames() if name.endswith("model_config.yaml")]
        text = archive.extractfile(name).read().decode()
    assert "${" not in text
    optim = yaml.safe_load(text)["optim"]
    assert float(optim["lr"]) == pytest.approx(done.cfg.model.optim.lr)
    sched = optim["sched"]
    assert (sched["warmup_steps"], sched["warmup_ratio"]) == (1, None)  # the run has two steps
    assert sched.get("hold_ratio", 0.32) == 0.32


@pytest.mark.parametrize("recipe", recipes())
def test_a_saved_model_gives_the_same_output_in_another_process(recipe, tried, restored):
    done = tried(recipe)
    found = restored[recipe]
    assert "error" not in found, found["error"]
    weights = {name: weight for name, weight in done.model.state_dict().items() if torch.is_tensor(weight)}
    torch.testing.assert_close(found["weights"], weights, rtol=0, atol=0)
    assert found["output"].keys() == done.output.keys()
    for name, value in done.output.items():
        if torch.is_tensor(value):
            torch.testing.assert_close(found["output"][name], value)
            assert value.isfinite().all(), name
        else:
            assert found["output"][name] == value
    assert any(torch.is_tensor(value) and value.unique().numel() > 1 for value in done.output.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NeMo has the TDT loss for CUDA only")
@pytest.mark.parametrize("recipe", ["squeezeformer_tdt_bpe", "squeezeformer_hybrid_tdt_ctc_bpe"])
def test_tdt_recipes_train_with_the_loss_of_nemo_on_a_gpu(recipe, tmp_path):
    cfg = compose(recipe, [*TYPES[recipe].overrides(tmp_path), "trainer.accelerator=gpu", "trainer.devices=1"])
    model = TYPES[recipe].train(cfg)
    assert model.trainer.global_step == 2
    assert math.isfinite(float(model.trainer.callback_metrics["train_loss"]))
