"""Refuses runs that never end, or with Lhotse never validate."""

from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.data import is_named
from nemo_squeezeformer.training.devices import processes
from nemo_squeezeformer.training.settings import value


def check(cfg: Any) -> None:
    """Refuse a composed recipe whose run would not start, not end, or with Lhotse never validate.

    A recipe that names no training data is not refused yet.

    Raises:
        UserError: naming the setting, its value and the remedy.
    """
    train = value(cfg, "model.train_ds")
    if not is_named(train):
        return
    if train.get("use_lhotse"):
        _check_lhotse(cfg)
    epochs, steps = value(cfg, "trainer.max_epochs"), value(cfg, "trainer.max_steps", -1)
    if steps < 0 and epochs is not None and epochs < 0:
        given = f"trainer.max_epochs={epochs} and trainer.max_steps={steps}"
        raise UserError(f"{given} never end, so that the learning rate cannot be planned; set one of them")


def _check_lhotse(cfg: Any) -> None:
    if value(cfg, "trainer.max_steps", -1) < 0:
        raise UserError(
            "with model.train_ds.use_lhotse=true the steps of an epoch are not known beforehand: set "
            "trainer.max_steps, the optimiser steps of the whole run"
        )
    limit = value(cfg, "trainer.limit_train_batches")
    if not isinstance(limit, int):
        raise UserError(
            f"trainer.limit_train_batches={limit} with model.train_ds.use_lhotse=true: an epoch need not end, and "
            "nothing would be validated or saved; data=lhotse (or lhotse_tarred) sets that and its like, or give "
            "trainer.limit_train_batches=1000 (batches)"
        )
    number = processes(value(cfg, "trainer.accelerator", "auto"), value(cfg, "trainer.devices", "auto"))
    number *= value(cfg, "trainer.num_nodes", 1)
    if number > 1 and value(cfg, "trainer.use_distributed_sampler") is not False:
        raise UserError(
            f"{number} processes with model.train_ds.use_lhotse=true need +trainer.use_distributed_sampler=false, "
            "for Lhotse shares the data out itself; data=lhotse sets it"
        )
