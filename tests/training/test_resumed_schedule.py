"""Tests of the learning rate of resumed runs: the plan that is shown is the plan of every step."""

from __future__ import annotations

import re
from pathlib import Path

import lightning.pytorch as lightning
import pytest
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.callbacks import resumed_schedule
from nemo_squeezeformer.integration.callbacks.resumed_schedule import KEEP, STRETCH, ResumedSchedule
from nemo_squeezeformer.integration.exact_resume import ExactResume
from nemo_squeezeformer.training import schedule
from nemo_squeezeformer.training.recipes import compose
from tests.samples.model_types import MODEL_TYPES
from tests.training.test_schedule import TRAIN, OneWeight, recipe

PLAN = re.compile(r"Resumed at step (\d+) of (\d+): .*?: ([\d.e-]+) now and ([\d.e-]+) at the end")


class Stop(Callback):
    """A callback that ends the run after a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step


class Save(Callback):
    """A callback that writes a checkpoint after a step, like NeMo's callback with ``every_n_train_steps``."""

    def __init__(self, path: Path, step: int):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def rates(*overrides: str, ckpt: Path | None = None, callbacks=(), lr: float = 1.0, save: Path | None = None):
    """Return the learning rate of each step of a run of a recipe. ``save``: write a checkpoint at the end."""
    cfg = recipe(TRAIN, f"model.optim.lr={lr}", *overrides)
    OmegaConf.set_struct(cfg, False)
    for section in set(cfg.model) - {"train_ds", "optim"}:
        cfg.model[section] = None
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    run = ("max_epochs", "max_steps", "accumulate_grad_batches")
    given = {name: cfg.trainer[name] for name in run}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **given, **off)
    model = OneWeight(cfg.model, trainer, 160)
    schedule.keep_warm_up(model)
    trainer.fit(model, ckpt_path=ckpt)
    if save:
        trainer.save_checkpoint(save)
    return model.rates


@pytest.fixture
def shown(monkeypatch):
    """Return the warnings of the callback as a list."""
    found: list[str] = []
    monkeypatch.setattr(resumed_schedule.logging, "warning", lambda message, *_: found.append(str(message)))
    return found


def stopped(folder: Path, *overrides: str, step: int = 20) -> tuple[Path, list[float]]:
    """Stop a run of 40 steps, and return the checkpoint and the rates."""
    path = folder / "stopped.ckpt"
    return path, rates("trainer.max_epochs=4", *overrides, callbacks=[Stop(step)], save=path)


SCHEDULES = ["noam_hold", "inverse_sqrt", "constant", "cosine", "linear", "hold_linear", "hold_sqrt"]
# The other schedules have the same path through NeMo and run in the slow lane.
SOME = [name if name in ("noam_hold", "cosine") else pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULES]
ENDLESS = ["noam_hold", "inverse_sqrt", "constant"]


@pytest.mark.parametrize("step", [20, 40])
@pytest.mark.parametrize("sched", SOME)
def test_a_longer_run_keeps_the_curve_that_was_begun(tmp_path, shown, sched, step):
    path, before = stopped(tmp_path, f"sched={sched}", step=step)
    after = rates("trainer.max_epochs=8", f"sched={sched}", ckpt=path, callbacks=[ResumedSchedule()])
    unbroken = rates("trainer.max_epochs=4", f"sched={sched}")
    assert before == unbroken[:step]
    assert len(before + after) == 80
    assert after[: 40 - step] == pytest.approx(unbroken[step:])
    (line,) = shown
    now, end, first, last = map(float, PLAN.search(line).groups())
    assert (now, end, first) == (step, 80, pytest.approx(after[0], rel=1e-3))
    assert last == pytest.approx(after[-1], rel=1e-3)
    if sched in ENDLESS:  # the formula goes on, without a jump
        assert all(0.4 * old <= new <= old for old, new in zip([before[-1], *after], after))
        assert after[-1] > 0.01 and "have the minimum" not in line
    else:
        assert after[41 - step :] == pytest.approx([1e-6] * 39) and "after step 40 have the minimum" in line


@pytest.mark.parametrize(
    "step, callbacks", [(17, []), (20, []), (17, [ExactResume()])], ids=["inside", "at the end", "inside, exact"]
)
def test_the_end_is_right_for_a_checkpoint_that_is_written_before_the_step_is_counted(tmp_path, shown, step, callbacks):
    path = tmp_path / "saved.ckpt"
    rates("trainer.max_epochs=4", callbacks=[Save(path, step)])
    after = rates("trainer.max_epochs=8", ckpt=path, callbacks=[ResumedSchedule(), *callbacks])
    now, end, first, last = map(float, PLAN.search(shown[0]).groups())
    assert (now, end) == (step, step + len(after))
    assert (first, last) == (pytest.approx(after[0], rel=1e-3), pytest.approx(after[-1], rel=1e-3))
    assert len(after) == 80 - step + (not callbacks)  # Lightning alone repeats a batch


def test_the_kept_curve_is_the_formula_of_the_first_plan(tmp_path, shown):
    path, before = stopped(tmp_path)
    after = rates("trainer.max_epochs=8", ckpt=path, callbacks=[ResumedSchedule()])
    # Warm-up until step 1, hold until step 13, then 1 / (step - 12).
    assert after == pytest.approx([1 / (step - 12) for step in range(20, 80)])


@pytest.mark.parametrize("sched", SOME)
def test_stretch_gives_each_later_step_the_rate_of_a_new_run_of_the_new_length(tmp_path, shown, sched):
    path, before = stopped(tmp_path, f"sched={sched}")
    after = rates("trainer.max_epochs=8", f"sched={sched}", ckpt=path, callbacks=[ResumedSchedule(STRETCH)])
    assert after == pytest.approx(rates("trainer.max_epochs=8", f"sched={sched}")[20:])
    now, end, first, last = map(float, PLAN.search(shown[0]).groups())
    assert (first, last) == (pytest.approx(after[0], rel=1e-3), pytest.approx(after[-1], rel=1e-3))
    assert f"{resumed_schedule.SETTING}={KEEP} gives" in shown[0]


@pytest.mark.parametrize(
    "changed, end",
    [
        (["trainer.max_epochs=-1", "trainer.max_steps=70"], 70),
        (["trainer.max_epochs=4", "model.train_ds.batch_size=8"], 60),
        (["trainer.max_epochs=4", "model.train_ds.batch_size=32"], 30),
        (["trainer.max_epochs=4", "trainer.accumulate_grad_batches=2"], 30),
        (["trainer.max_epochs=3"], 30),
    ],
    ids=str,
)
@pytest.mark.parametrize("resumed", [KEEP, STRETCH])
def test_other_changes_of_the_length_show_the_plan_that_runs(tmp_path, shown, changed, end, resumed):
    path, before = stopped(tmp_path)
    after = rates(*changed, ckpt=path, callbacks=[ResumedSchedule(resumed)])
    assert len(before + after) == end
    (line,) = shown
    now, planned, first, last = map(float, PLAN.search(line).groups())
    assert (now, planned) == (20, end)
    assert (first, last) == (pytest.approx(after[0], rel=1e-3), pytest.approx(after[-1], rel=1e-3))
    if resumed == KEEP:
        assert after == pytest.approx([1 / (step - 12) for step in range(20, end)])
    else:
        assert after == pytest.approx(rates("trainer.max_epochs=-1", f"trainer.max_steps={end}")[20:])


def test_another_peak_is_kept_and_named(tmp_path, shown):
    path, _ = stopped(tmp_path)
    after = rates("trainer.max_epochs=4", lr=0.5, ckpt=path, callbacks=[ResumedSchedule()])
    assert after[0] == pytest.approx(1 / 8)
    assert "peak 1," in shown[0] and "gives 0.0625 now" in shown[0]
    shown.clear()
    after = rates("trainer.max_epochs=4", lr=0.5, ckpt=path, callbacks=[ResumedSchedule(STRETCH)])
    assert after[0] == pytest.approx(0.5 / 8)


@pytest.mark.slow
@pytest.mark.parametrize("sched", SCHEDULES)
@pytest.mark.parametrize("resumed", [KEEP, STRETCH])
def test_an_equal_run_resumes_without_a_message_and_with_equal_rates(tmp_path, shown, sched, resumed):
    path, before = stopped(tmp_path, f"sched={sched}", step=30)
    after = rates("trainer.max_epochs=4", f"sched={sched}", ckpt=path, callbacks=[ResumedSchedule(resumed)])
    assert before + after == rates("trainer.max_epochs=4", f"sched={sched}")
    assert shown == []


def test_without_the_callback_the_rate_falls_to_its_minimum(tmp_path):
    """If this test fails, Lightning or NeMo has changed, and the callback may no longer be necessary."""
    path, _ = stopped(tmp_path)
    after = rates("trainer.max_epochs=8", ckpt=path)
    assert after[21:] == pytest.approx([1e-5] * 39)


def test_another_schedule_or_optimizer_is_refused_with_a_remedy(tmp_path, shown):
    path, _ = stopped(tmp_path)
    with pytest.raises(UserError, match="schedule NoamHoldAnnealing, .*set schedule.resumed=stretch"):
        rates("trainer.max_epochs=4", "sched=cosine", ckpt=path, callbacks=[ResumedSchedule()])
    with pytest.raises(UserError, match="optimizer adamw, .*resume with optim=adamw"):
        rates("trainer.max_epochs=4", "optim=sgd", ckpt=path, callbacks=[ResumedSchedule()])
    after = rates("trainer.max_epochs=4", "sched=cosine", ckpt=path, callbacks=[ResumedSchedule(STRETCH)])
    assert after == pytest.approx(rates("trainer.max_epochs=4", "sched=cosine")[20:])
    with pytest.raises(UserError, match="schedule.resumed=longer: expected keep or stretch"):
        ResumedSchedule("longer")


def test_the_command_train_adds_the_callback_with_the_setting_of_the_recipe(tmp_path):
    kind = MODEL_TYPES["EncDecCTCModel"]
    cfg = compose("squeezeformer_ctc_char", [*kind.overrides(tmp_path), "schedule.resumed=stretch"])
    added = [each for each in train(cfg).trainer.callbacks if isinstance(each, ResumedSchedule)]
    assert [each.resumed for each in added] == [STRETCH]
    assert compose("squeezeformer_ssl").schedule.resumed == compose("squeezeformer_ctc_char").schedule.resumed == KEEP
