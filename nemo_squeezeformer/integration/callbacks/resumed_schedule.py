"""The learning-rate schedule of a resumed run whose settings plan another schedule than the checkpoint has."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.core.optim import lr_scheduler
from nemo.utils import logging
from omegaconf import OmegaConf

from nemo_squeezeformer.errors import UserError

KEEP, STRETCH = "keep", "stretch"
SETTING = "schedule.resumed"
# Schedules whose formula does not contain the length of the run. NeMo only stops these schedules at this length.
ENDLESS = ("NoamHoldAnnealing", "NoamAnnealing", "InverseSquareRootAnnealing", "WarmupPolicy", "WarmupHoldPolicy")
COUNTER = "last_epoch"  # every attribute with a leading underscore is a counter too


def add_callback(trainer: Trainer, resumed: str) -> None:
    """Add ``ResumedSchedule`` to the callbacks of the trainer."""
    trainer.callbacks.insert(0, ResumedSchedule(resumed))  # type: ignore[attr-defined]


class ResumedSchedule(Callback):
    """A callback that decides which schedule a resumed run has, and logs the decision in one line.

    Lightning restores the schedule of the checkpoint after NeMo has shown the schedule of the new settings. Without
    this callback, the learning rate therefore falls to its minimum at the end of the first plan.

    If the two schedules are equal, the callback does nothing. Schedules of PyTorch, without a length, are not changed.

    Args:
        resumed: ``keep`` continues the curve of the checkpoint. A curve that has no end continues up to the new end of
            the run. ``stretch`` plans the schedule of the new settings for the new length of the run, and continues at
            the step of the checkpoint.
    """

    def __init__(self, resumed: str = KEEP) -> None:
        if resumed not in (KEEP, STRETCH):
            raise UserError(f"{SETTING}={resumed}: expected {KEEP} or {STRETCH}")
        self.resumed = resumed
        self._planned: dict[str, Any] | None = None
        self._inside_epoch = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        self._inside_epoch = epochs["started"] > epochs["processed"]
        settings = checkpoint.get("hyper_parameters", {}).get("cfg") or {}
        begun, new = _names(settings), _names(pl_module.cfg)  # NeMo saves the configuration of the model
        if begun["optim"] and new["optim"] and begun["optim"] != new["optim"]:
            raise UserError(
                f"{trainer.ckpt_path} was written by the optimizer {begun['optim']}, and "
                f"model.optim.name={new['optim']} cannot use its state; resume with optim={begun['optim']}, or start a "
                "new run from the weights with +init_from_ptl_ckpt"
            )
        if begun["sched"] and new["sched"] and begun["sched"] != new["sched"] and self.resumed == KEEP:
            raise UserError(
                f"{trainer.ckpt_path} was written with the schedule {begun['sched']}, and this run has "
                f"model.optim.sched.name={new['sched']}; resume with the old schedule, or set {SETTING}={STRETCH} to "
                "continue with the new schedule"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # NeMo has built the schedule of the new settings, and Lightning has not yet loaded the schedule of the file.
        scheduler = _scheduler(trainer)
        self._planned = _plan(scheduler) if trainer.ckpt_path and scheduler is not None else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler, new, self._planned = _scheduler(trainer), self._planned, None
        if scheduler is None or new is None:
            return
        begun, end = _plan(scheduler), last_step(trainer, self._inside_epoch)
        changed = any(not _equal(begun[name], new[name]) for name in begun.keys() & new.keys())
        if not changed and end <= begun["max_steps"]:
            return
        cfg: Any = pl_module.cfg
        stretched = _stretched(scheduler, new, cfg.optim.sched, end)
        kept = dict(begun)
        if type(scheduler).__name__ in ENDLESS:
            kept["max_steps"] = max(end, begun["max_steps"])
        now = scheduler.last_epoch
        rates = {
            name: [rate_at(_copied(scheduler, plan), step) for step in (now, end - 1)]
            for name, plan in ((KEEP, kept), (STRETCH, stretched))
        }
        _set(scheduler, kept if self.resumed == KEEP else stretched)
        logging.warning(_line(self.resumed, kept, stretched, rates, now, end, begun["max_steps"]))


def last_step(trainer: Trainer, inside_epoch: bool = False) -> int:
    """Return the number of optimizer steps after which the run ends, counted from the first start.

    Args:
        inside_epoch: if True, Lightning continues an epoch of the checkpoint after the batches that were completed.
    """
    end = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0 and math.isfinite(trainer.num_training_batches):
        batches, each = trainer.num_training_batches, trainer.accumulate_grad_batches
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed if inside_epoch else 0
        epochs = trainer.max_epochs - trainer.current_epoch
        end = min(end, trainer.global_step + epochs * math.ceil(batches / each) - done // each)
    return int(end) if math.isfinite(end) else trainer.global_step


def rate_at(scheduler: Any, step: int) -> float:
    """Return the learning rate of the first group of weights at a step, from a copy of a schedule of NeMo."""
    scheduler.last_epoch = step
    scheduler._get_lr_called_within_step = True  # without this, PyTorch warns
    return float(scheduler.get_lr()[0])


def _scheduler(trainer: Trainer) -> Any:
    """Return the schedule of NeMo with a length, or None."""
    configs = trainer.lr_scheduler_configs
    found = configs[0].scheduler if len(configs) == 1 else None
    return found if getattr(found, "max_steps", None) is not None else None


def _plan(scheduler: Any) -> dict[str, Any]:
    """Return the numbers that define the curve of a schedule."""
    state = scheduler.state_dict()
    return {
        name: copy.deepcopy(number) for name, number in state.items() if not (name.startswith("_") or name == COUNTER)
    }


def _set(scheduler: Any, plan: Mapping[str, Any]) -> None:
    """Give the schedule another curve, and the optimizer the learning rate of this curve."""
    for name, number in plan.items():
        setattr(scheduler, name, copy.deepcopy(number))
    rates = _copied(scheduler, plan)
    rate_at(rates, scheduler.last_epoch)
    for group, base, rate in zip(scheduler.optimizer.param_groups, plan["base_lrs"], rates.get_lr()):
        group["initial_lr"], group["lr"] = base, rate
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def _copied(scheduler: Any, plan: Mapping[str, Any]) -> Any:
    """Return a schedule of the same class with the numbers of ``plan``. The copy has no optimizer of its own."""
    made = copy.copy(scheduler)
    made.__dict__.update(copy.deepcopy(dict(plan)))
    return made


def _stretched(scheduler: Any, new: Mapping[str, Any], sched: Any, end: int) -> dict[str, Any]:
    """Return the numbers of the schedule that NeMo makes of the new settings for a run of ``end`` steps."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in new["base_lrs"]]
    settings: Any = OmegaConf.to_container(sched, resolve=True)
    settings["max_steps"] = end
    with logging.temp_verbosity(logging.ERROR):
        made = lr_scheduler.prepare_lr_scheduler(torch.optim.SGD(groups, lr=0.0), settings)
    return _plan(made["scheduler"]) if made else dict(new)


def _names(cfg: Any) -> dict[str, str | None]:
    optim = cfg.get("optim") or {}
    return {"optim": optim.get("name"), "sched": (optim.get("sched") or {}).get("name")}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return math.isclose(one, other) if isinstance(one, float) and isinstance(other, float) else bool(one == other)


def _line(
    resumed: str,
    kept: Mapping[str, Any],
    stretched: Mapping[str, Any],
    rates: Mapping[str, list[float]],
    now: int,
    end: int,
    old_end: int,
) -> str:
    plan, other = (kept, stretched) if resumed == KEEP else (stretched, kept)
    first, last = rates[resumed]
    words = "continues the curve of the first start" if resumed == KEEP else f"has a new curve for {end} steps"
    line = (
        f"Resumed at step {now} of {end}: the learning rate {words} ({_described(plan)}): {first:.4g} now and "
        f"{last:.4g} at the end of the run. NeMo's lines about the scheduler show the plan of a new run, which is not "
        "in force."
    )
    if resumed == KEEP and kept["max_steps"] < end:
        line += f" The curve was planned for {old_end} steps, so the steps after step {old_end} have the minimum."
    name, another = (STRETCH, rates[STRETCH]) if resumed == KEEP else (KEEP, rates[KEEP])
    return f"{line} {SETTING}={name} gives {another[0]:.4g} now and {another[1]:.4g} at the end ({_described(other)})."


def _described(plan: Mapping[str, Any]) -> str:
    parts = [f"peak {plan['base_lrs'][0]:.4g}"]
    if plan.get("warmup_steps"):
        parts.append(f"warm-up until step {plan['warmup_steps']:g}")
    if plan.get("hold_steps"):
        parts.append(f"hold until step {plan['hold_steps']:g}")
    return ", ".join([*parts, f"planned for {plan['max_steps']:g} steps"])
