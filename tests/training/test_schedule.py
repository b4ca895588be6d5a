"""Tests of the learning rate of a real optimizer in a run of a recipe, and of settings that must be refused."""

from __future__ import annotations

import lightning.pytorch as lightning
import pytest
import torch
from nemo.core import ModelPT
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from torch.utils.data import DataLoader, TensorDataset

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import schedule
from nemo_squeezeformer.training.devices import processes
from nemo_squeezeformer.training.global_batch import global_batch
from nemo_squeezeformer.training.recipes import compose

TRAIN = "model.train_ds.manifest_filepath=train.json"


def recipe(*overrides: str):
    return compose("squeezeformer_ctc_char", ["trainer.accelerator=cpu", "trainer.devices=1", *overrides])


class OneWeight(ModelPT):
    """A model with one weight that uses NeMo's path from a configuration to an optimizer."""

    def __init__(self, cfg, trainer, utterances: int):
        self.utterances, self.rates = utterances, []
        super().__init__(cfg, trainer)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def setup_training_data(self, config):
        data = TensorDataset(torch.ones(self.utterances, 1))
        self._train_dl = DataLoader(data, config.batch_size, drop_last=config.get("drop_last", False))

    def setup_validation_data(self, config):
        pass

    @classmethod
    def list_available_models(cls):
        return []

    def training_step(self, batch, _):
        return (self.weight * batch[0]).mean()

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def rates(utterances: int, *overrides: str, short: bool = False) -> list[float]:
    """Return the learning rate at each step of a run of a recipe with ``utterances`` utterances.

    ``short``: call ``keep_warm_up`` before training, like the command.
    """
    cfg = recipe(TRAIN, *overrides)
    OmegaConf.set_struct(cfg, False)
    for section in set(cfg.model) - {"train_ds", "optim"}:
        cfg.model[section] = None
    run = ("max_epochs", "max_steps", "accumulate_grad_batches", "limit_train_batches")
    given = {name: cfg.trainer[name] for name in run if name in cfg.trainer}
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", devices=1, **dict.fromkeys(quiet, False), **given)
    model = OneWeight(cfg.model, trainer, utterances)
    if short:
        schedule.keep_warm_up(model)
    trainer.fit(model)
    return model.rates


RUNS = {  # each run has 100 steps
    "epochs": (160, ["trainer.max_epochs=10"]),
    "steps": (160, ["trainer.max_epochs=-1", "trainer.max_steps=100"]),
    "steps before the epochs end": (160, ["trainer.max_epochs=500", "trainer.max_steps=100"]),
    "a last batch that is not full": (150, ["trainer.max_epochs=10"]),
    "a last batch that is dropped": (170, ["trainer.max_epochs=10", "+model.train_ds.drop_last=true"]),
    "accumulated batches": (310, ["trainer.max_epochs=10", "trainer.accumulate_grad_batches=2"]),
    "a limited number of batches": (999, ["trainer.max_epochs=10", "+trainer.limit_train_batches=10"]),
    "a share of the batches": (640, ["trainer.max_epochs=10", "+trainer.limit_train_batches=0.25"]),
}


@pytest.mark.parametrize("utterances, overrides", RUNS.values(), ids=RUNS)
def test_the_run_warms_up_for_4_percent_holds_for_32_and_decays(utterances, overrides):
    taken = rates(utterances, "model.optim.lr=1.0", *overrides)
    assert len(taken) == 100
    assert taken[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert taken[4:37] == pytest.approx([1.0] * 33)
    assert taken[37] == pytest.approx(4 / 5)
    assert taken[99] == pytest.approx(4 / (99 - 32))
    assert sorted(taken[36:], reverse=True) == taken[36:]


def test_a_run_whose_epochs_end_before_max_steps_is_planned_by_max_steps_as_nemo_does():
    taken = rates(160, "model.optim.lr=1.0", "trainer.max_epochs=10", "trainer.max_steps=200")
    assert len(taken) == 100
    assert taken[7:100] == pytest.approx([8 / 9, *[1.0] * 65, *(8 / (step - 64) for step in range(73, 100))])


@pytest.mark.parametrize("steps", [1, 3, 10, 24])
@pytest.mark.parametrize("run", ["trainer.max_epochs={}", "trainer.max_steps={}"])
def test_a_run_of_few_steps_still_has_one_step_of_warm_up(steps, run):
    taken = rates(16, "model.optim.lr=1.0", run.format(steps), short=True)
    assert len(taken) == steps
    assert taken[:2] == pytest.approx([0.5, 1.0][:steps])


def test_nemo_fails_in_a_short_run_without_a_warm_up_step():
    with pytest.raises(ValueError, match="without warmup steps"):
        rates(16, "trainer.max_epochs=10")


@pytest.mark.parametrize(
    "overrides, steps, ratio",
    [
        (["trainer.max_steps=5"], 1, None),
        (["trainer.max_steps=24"], 1, None),
        (["trainer.max_steps=25"], None, 0.04),
        (["trainer.max_epochs=5"], None, 0.04),
        (["trainer.max_steps=5", "model.optim.sched.warmup_ratio=0.4"], None, 0.4),
        (["trainer.max_steps=5", "model.optim.sched.warmup_steps=2"], 2, None),
    ],
    ids=str,
)
def test_the_recipe_has_a_warm_up_step_in_a_run_of_few_steps(overrides, steps, ratio):
    sched = compose("squeezeformer_ctc_bpe", ["size=xs", *overrides]).model.optim.sched
    assert (sched.warmup_steps, sched.warmup_ratio) == (steps, ratio)


def test_a_longer_run_keeps_the_warm_up_ratio():
    assert rates(160, "model.optim.lr=1.0", "trainer.max_epochs=10", short=True)[:5] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )


def test_steps_given_by_the_user_replace_the_ratio():
    given = ["model.optim.lr=1.0", "trainer.max_epochs=10"]
    taken = rates(160, *given, "model.optim.sched.warmup_steps=9", "model.optim.sched.hold_steps=20", short=True)
    assert taken[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert taken[9:30] == pytest.approx([1.0] * 21)
    assert taken[30] < 1.0


def test_a_ratio_given_by_the_user_is_used():
    taken = rates(160, "model.optim.lr=1.0", "trainer.max_epochs=10", "model.optim.sched.warmup_ratio=0.1")
    assert taken[9:11] == pytest.approx([10 / 11, 1.0])


def test_a_smaller_batch_lowers_the_peak_by_the_square_root_and_a_larger_batch_keeps_it():
    def peak(*overrides: str) -> float:
        return recipe(TRAIN, *overrides).model.optim.lr

    assert peak("model.train_ds.batch_size=64") == 2e-3 / 4
    assert peak("model.train_ds.batch_size=64", "trainer.devices=16") == 2e-3
    assert peak("model.train_ds.batch_size=4096") == 2e-3
    assert peak("model.train_ds.batch_size=16", "trainer.accumulate_grad_batches=4") == 2e-3 / 4
    assert peak("size=l", "model.train_ds.batch_size=512") == 5e-4 / 2
    assert peak("model.optim.lr=0.01") == 0.01
    assert max(rates(160, "trainer.max_epochs=10")) == 2.5e-4  # batch of 16, published for 1,024


def test_a_recipe_without_data_resolves():
    resolved = OmegaConf.to_container(recipe(), resolve=True)
    sched = resolved["model"]["optim"]["sched"]
    assert (sched["warmup_steps"], sched["warmup_ratio"], sched["hold_steps"], sched["hold_ratio"]) == (
        None,
        0.04,
        None,
        0.32,
    )
    assert resolved["model"]["optim"]["lr"] == 2.5e-4
    assert resolved["trainer"]["sync_batchnorm"] is False
    assert OmegaConf.to_container(recipe("model.train_ds=null"), resolve=True)["model"]["optim"]["lr"] is None


def test_registering_twice_changes_nothing():
    schedule.register()
    schedule.register()
    assert recipe().model.optim.sched.hold_ratio == 0.32


def test_the_summary_says_where_the_global_batch_comes_from():
    assert "peak 0.01 for" in schedule.summary(recipe(TRAIN, "model.optim.lr=0.01"))
    shown = schedule.summary(recipe(TRAIN, "model.train_ds.batch_size=8", "trainer.devices=2"))
    assert "peak 0.00025 for a global batch of 16 (model.train_ds.batch_size=8 x 2 processes x trainer." in shown


@pytest.mark.parametrize("devices, number", [("2", 2), ("'3'", 3), ("auto", 1)])
def test_cpu_processes_are_counted_as_lightning_starts_them(devices, number):
    given = recipe(TRAIN, f"trainer.devices={devices}", "trainer.num_nodes=2")
    assert global_batch(given).utterances == 16 * 2 * number


def test_devices_that_lightning_refuses_are_named():
    with pytest.raises(UserError, match=r"trainer.devices=-1 .*trainer.devices=auto"):
        processes("cpu", -1)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["trainer.accumulate_grad_batches=0"], r"global batch is 0.*accumulate_grad_batches=0"),
        (["model.train_ds.batch_size=0"], r"global batch is 0.*batch_size=0"),
        (["schedule.peak_lr=0"], r"schedule.peak_lr=0.*size=s"),
        (["trainer.devices=-1"], r"trainer.devices=-1 .*trainer.devices=auto"),
    ],
)
def test_a_peak_that_cannot_be_computed_is_refused_with_a_remedy(overrides, message):
    with pytest.raises(UserError, match=message):
        schedule.summary(recipe(TRAIN, *overrides))


def test_a_run_that_never_ends_is_refused_also_in_nemos_scripts():
    cfg = recipe(TRAIN, "trainer.max_epochs=-1")
    with pytest.raises(UserError, match="never end"):
        schedule.check(cfg)
    with pytest.raises(InterpolationResolutionError, match="never end"):
        OmegaConf.to_container(cfg.model.optim, resolve=True)
    schedule.check(recipe("trainer.max_epochs=-1"))  # the recipe names no data


@pytest.mark.parametrize("name", ["trainer.max_epochs", "trainer.max_steps"])
@pytest.mark.parametrize("given, message", [("0", "would train nothing"), ("abc", "whole number"), ("2.5", "whole")])
def test_a_run_without_a_step_and_a_length_that_is_not_a_number_are_refused(name, given, message):
    with pytest.raises(UserError, match=f"{name}={given}.*{message}"):
        schedule.check(recipe(TRAIN, f"{name}={given}"))


@pytest.mark.parametrize(
    "setting, replacement",
    [
        ("schedule.warmup_epochs=20", "model.optim.sched.warmup_ratio"),
        ("schedule.hold_epochs=160", "model.optim.sched.hold_ratio"),
        ("schedule.hours=960", "trainer.max_steps"),
        ("+schedule.steps_per_epoch=100", "trainer.max_steps"),
    ],
)
def test_a_removed_setting_is_refused_with_the_replacement(setting, replacement, tmp_path):
    key, _, number = setting.lstrip("+").partition("=")
    with pytest.raises(UserError, match=rf"{key} was removed: .*{replacement}"):
        recipe(setting)
    name = key.partition(".")[2]
    (tmp_path / "mine.yaml").write_text(f"defaults: [squeezeformer_ctc_char, _self_]\nschedule: {{{name}: {number}}}\n")
    with pytest.raises(UserError, match=rf"{key} was removed: .*{replacement}"):
        schedule.check(compose(str(tmp_path / "mine.yaml")))


@pytest.mark.parametrize("phase", ["warmup", "hold"])
def test_a_removed_resolver_of_steps_is_refused_with_the_ratio(phase):
    cfg = recipe(TRAIN, f"model.optim.sched.{phase}_steps=${{squeezeformer.{phase}_steps:}}")
    with pytest.raises(UserError, match=f"was removed: write {phase}_steps: null and {phase}_ratio: 0"):
        schedule.check(cfg)
    with pytest.raises(InterpolationResolutionError, match=f"{phase}_ratio: 0"):
        OmegaConf.to_container(cfg.model.optim, resolve=True)
