"""The paper's learning-rate schedule in optimiser steps, out of data, global batch and length of the run.

The paper warms up for 20 epochs and holds for 160 of 500; NeMo's NoamHoldAnnealing wants steps. The recipes ask for
them by OmegaConf resolvers (``${squeezeformer.warmup_steps:}`` and so on), which ``register`` makes known. NeMo
resolves a model's configuration when it builds the model, so that saved models hold plain numbers.
"""

import math
from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import lhotse_batches
from nemo_squeezeformer.training.epoch import (
    accelerator,
    bucket_batches,
    bucket_sizes,
    count,
    optimiser_steps,
    processes,
)

LIBRISPEECH_MEAN_SECONDS = 12.3
SHARES = {"warmup": 20 / 500, "hold": 160 / 500}  # of the run, by the paper
LIGHTNING_MAX_EPOCHS = 1000  # Lightning's own when neither max_epochs nor max_steps is set
_shown: set[str] = set()


@dataclass(frozen=True)
class Plan:
    """One run in numbers. Whatever hangs on data that is not named yet is None.

    ``hold_steps`` counts from the end of the warm-up, as NoamHoldAnnealing's argument does. ``global_batch`` is the
    utterances of one optimiser step, ``batch`` how they come about.
    """

    hours: float | None
    utterances: int | None
    global_batch: float
    batch: str
    steps_per_epoch: int | None
    steps: int | None
    warmup_steps: int | None
    hold_steps: int | None
    peak_lr: float
    published_lr: float
    published_batch: int

    def __str__(self) -> str:
        """The lines shown when training starts."""
        counted = self.hours is not None and self.utterances is not None
        data = f"{self.hours:,.4g} h in {self.utterances:,} utterances" if counted else "not counted"
        per_epoch = f"; {self.steps_per_epoch:,} steps an epoch" if self.steps_per_epoch else ""
        run, warmup, hold = map(self._length, (self.steps, self.warmup_steps, self.hold_steps))
        published = f"published: {self.published_lr:.4g} with a global batch of {self.published_batch:,}"
        return (
            "Squeezeformer's learning-rate schedule\n"
            f"  data           {data}\n"
            f"  global batch   {self.global_batch:,.4g} ({self.batch}){per_epoch}\n"
            f"  whole run      {run}\n"
            f"  warm-up, hold  {warmup}, {hold}; then decay\n"
            f"  peak lr        {self.peak_lr:.4g} ({published})"
        )

    def _length(self, steps: int | None) -> str:
        if steps is None:
            return "not known"
        return f"{steps:,} steps" + (f" ({steps / self.steps_per_epoch:.3g} epochs)" if self.steps_per_epoch else "")


def register() -> None:
    """Make the resolvers of the recipes known to OmegaConf; safe to call again."""
    from omegaconf import OmegaConf

    def planned(name: str) -> Any:
        return lambda *, _root_: _announced(_root_, name)

    def on_cuda(*, _root_: Any) -> bool:
        return accelerator(value(_root_, "trainer.accelerator", "auto")) == "cuda"

    for name in ("warmup_steps", "hold_steps", "peak_lr"):
        OmegaConf.register_new_resolver(f"squeezeformer.{name}", planned(name), replace=True)
    OmegaConf.register_new_resolver("squeezeformer.on_cuda", on_cuda, replace=True)


def _announced(cfg: Any, name: str) -> int | float | None:
    """A number of the plan, which is logged once a process; NeMo's logger keeps to the main rank."""
    if value(cfg, "model.train_ds") is None:  # a model without training data: nothing to plan
        return None
    made = plan(cfg)
    if made.steps is not None and str(made) not in _shown:
        from nemo.utils import logging

        _shown.add(str(made))
        logging.info(str(made))
    return getattr(made, name)


def plan(cfg: Any) -> Plan:
    """Work out a run from a composed recipe (the whole of it: ``model``, ``trainer`` and ``schedule``).

    A number that the user wrote into ``model.optim`` in place of one of our interpolations wins over ours.

    Raises:
        UserError: the values contradict each other, or the length of an epoch is needed and cannot be counted.
    """
    hours, utterances = _data(cfg)
    size, number, accumulate, batch = _batch(cfg, hours * 3600 / utterances if hours and utterances else None)
    lhotse = bool(value(cfg, "model.train_ds.use_lhotse", False))
    per_epoch = value(cfg, "schedule.steps_per_epoch")
    if per_epoch is None and utterances is not None:
        limit = None if lhotse else value(cfg, "trainer.limit_train_batches", 1.0)  # Lhotse: a pass over the data
        drop_last = value(cfg, "model.train_ds.drop_last", False)
        batches = _bucket_batches(cfg)
        if batches is not None:  # in NeMo, a data set of batches
            per_epoch = optimiser_steps(batches, 1, number, accumulate, drop_last, limit)
        else:
            per_epoch = optimiser_steps(utterances, size, number, accumulate, drop_last, limit)
        if per_epoch < 1:
            raise UserError(
                f"an epoch of {utterances} utterances makes no step with {batch}; look at model.train_ds's "
                f"manifest_filepath, min_duration, max_duration, drop_last={drop_last}, and at "
                f"trainer.limit_train_batches={limit}"
            )
    if lhotse:
        lhotse_batches.check(value(cfg, "model.train_ds"), value(cfg, "trainer", {}), number, per_epoch)
        limit = value(cfg, "trainer.limit_train_batches")
        steps = _steps(cfg, math.ceil(limit / accumulate) if isinstance(limit, int) else None)
    else:
        steps = _steps(cfg, per_epoch)
    warmup, hold = _phase(cfg, "warmup", per_epoch, steps), _phase(cfg, "hold", per_epoch, steps)
    if steps is not None and (warmup or 0) + (hold or 0) > steps:
        raise UserError(
            f"warm-up ({warmup or 0:,} steps) and hold ({hold or 0:,} steps) exceed the run ({steps:,} steps): "
            "raise trainer.max_epochs or trainer.max_steps, or lower schedule.warmup_epochs and schedule.hold_epochs "
            "(null: 4 % and 32 % of the run)"
        )
    published_lr, published_batch = value(cfg, "schedule.peak_lr"), value(cfg, "schedule.peak_lr_batch")
    if not published_lr or not published_batch:
        given = f"schedule.peak_lr={published_lr} and schedule.peak_lr_batch={published_batch}"
        raise UserError(f"{given} must be above 0; a size (size=s) sets both")
    global_batch = size * number * accumulate
    peak_lr = _written(cfg, "model.optim", "lr")
    if peak_lr is None:  # rounded: it will stand in saved models
        peak_lr = float(f"{published_lr * min(1.0, math.sqrt(global_batch / published_batch)):.4g}")
    return Plan(
        hours, utterances, global_batch, batch, per_epoch, steps, warmup, hold, peak_lr, published_lr, published_batch
    )


def _batch(cfg: Any, mean_seconds: float | None) -> tuple[float, int, int, str]:
    """A process's batch in utterances, processes, batches to a step; and in words, how they make the global batch."""
    train = value(cfg, "model.train_ds", {})
    mean_seconds = mean_seconds or value(cfg, "schedule.mean_seconds", LIBRISPEECH_MEAN_SECONDS)
    size = lhotse_batches.utterances(train, mean_seconds)
    key = next(filter(train.get, ("bucket_batch_size", "batch_duration")), "batch_size")
    if train.get("is_tarred") and train.get("bucketing_batch_size"):
        key = "bucketing_batch_size"
        sizes = bucket_sizes(train[key], train.get("manifest_filepath"))
        size = sum(sizes) / len(sizes)
    written = f"model.train_ds.{key}={train.get(key)}"
    devices, nodes = value(cfg, "trainer.devices", "auto"), value(cfg, "trainer.num_nodes", 1)
    number = processes(value(cfg, "trainer.accelerator", "auto"), devices) * nodes
    accumulate = value(cfg, "trainer.accumulate_grad_batches", 1)
    words = f"{written} x {number} processes x trainer.accumulate_grad_batches={accumulate}"
    if size is None or size * number * accumulate <= 0:
        where = f"trainer.devices={devices}, trainer.num_nodes={nodes}"
        raise UserError(f"the global batch is 0: {words} ({where}); make each of them 1 at least")
    return size, number, accumulate, words


def _data(cfg: Any) -> tuple[float | None, int | None]:
    """Hours and utterances of an epoch; None where no data is named yet, or nothing hangs on them."""
    hours, mean_seconds = value(cfg, "schedule.hours"), value(cfg, "schedule.mean_seconds", LIBRISPEECH_MEAN_SECONDS)
    if hours is not None:
        if hours <= 0 or mean_seconds <= 0:
            raise UserError(f"schedule.hours={hours} and schedule.mean_seconds={mean_seconds} must be above 0")
        return hours, math.ceil(hours * 3600 / mean_seconds)
    train = value(cfg, "model.train_ds", {})
    named = train.get("manifest_filepath", "???")
    if named == "???":  # composed or printed before there is data
        return None, None
    try:
        if train.get("bucketing_weights") is not None:
            raise ValueError(f"buckets are repeated: bucketing_weights={train['bucketing_weights']}")
        utterances, seconds = count(named, train.get("min_duration"), train.get("max_duration"))
    except (OSError, ValueError) as error:
        by_epochs = any(value(cfg, f"schedule.{phase}_epochs") is not None for phase in SHARES)
        endless = value(cfg, "trainer.max_steps", -1) < 0
        if value(cfg, "schedule.steps_per_epoch") is not None or not (by_epochs or endless):
            return None, None
        raise UserError(
            f"the steps of an epoch cannot be counted from model.train_ds.manifest_filepath={named} ({error}); "
            "mend that, or set schedule.hours (and mean_seconds), schedule.steps_per_epoch, or trainer.max_steps"
        ) from error
    kept = min(utterances, train.get("max_utts") or utterances)
    return seconds / 3600 * kept / max(1, utterances), kept


def _bucket_batches(cfg: Any) -> int | None:
    """Batches of an epoch where NeMo's own buckets have batch sizes of their own; else None."""
    train = value(cfg, "model.train_ds", {})
    if not (train.get("is_tarred") and train.get("bucketing_batch_size")) or value(cfg, "schedule.hours") is not None:
        return None
    named, limits = train["manifest_filepath"], (train.get("min_duration"), train.get("max_duration"))
    return bucket_batches(named, train["bucketing_batch_size"], *limits)


def _steps(cfg: Any, per_epoch: int | None) -> int | None:
    """Optimiser steps of the whole run: whichever of max_steps and max_epochs comes first."""
    max_steps, max_epochs = value(cfg, "trainer.max_steps", -1), value(cfg, "trainer.max_epochs")
    if max_epochs is None and max_steps < 0:
        max_epochs = LIGHTNING_MAX_EPOCHS
    if max_epochs is not None and max_epochs < 0 and max_steps < 0:
        given = f"trainer.max_epochs={max_epochs} and trainer.max_steps={max_steps}"
        raise UserError(f"{given} never end, so that the learning rate cannot be planned; set one of them")
    ends = [max_steps] if max_steps >= 0 else []
    if per_epoch is not None and max_epochs is not None and max_epochs >= 0:
        ends.append(per_epoch * max_epochs)
    return min(ends, default=None)


def _phase(cfg: Any, name: str, per_epoch: int | None, steps: int | None) -> int | None:
    """Steps of warm-up or hold: the user's number, else the user's epochs, else the paper's share of the run."""
    written = _written(cfg, "model.optim.sched", f"{name}_steps")
    if written is not None or value(cfg, f"model.optim.sched.{name}_ratio") is not None:
        return written  # None with a ratio: NeMo takes one or the other
    epochs = value(cfg, f"schedule.{name}_epochs")
    at_least = 1 if name == "warmup" else 0  # NoamHoldAnnealing cannot do without a warm-up
    if epochs is not None:
        return None if per_epoch is None else max(at_least, round(epochs * per_epoch))
    return None if steps is None else max(at_least, math.floor(SHARES[name] * steps))


def value(cfg: Any, key: str, default: Any = None) -> Any:
    """A value of a configuration, resolved, as plain Python; the default where it is absent, null or ``???``."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError

    found = None
    try:
        found = OmegaConf.select(cfg, key, default=None)
        if OmegaConf.is_config(found):
            return OmegaConf.to_container(found, resolve=True)
    except InterpolationToMissingValueError:  # of the key itself, or of some that are below it
        return default if found is None else {name: value(found, name) for name in found}
    return default if found is None else found


def _written(cfg: Any, section: str, key: str) -> Any:
    """What the user wrote in place of one of our interpolations; None where ours stands, or nothing does."""
    from omegaconf import OmegaConf

    found = OmegaConf.select(cfg, section)
    raw: Any = (
        {} if found is None else OmegaConf.to_container(found, resolve=False)
    )  # resolving ours would come back here
    return None if "${squeezeformer." in str(raw.get(key)) else value(cfg, f"{section}.{key}")
