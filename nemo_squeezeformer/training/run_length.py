"""Checks that refuse runs that would never begin or never end, and runs with Lhotse that would never validate."""

from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.data import is_named
from nemo_squeezeformer.training.devices import processes
from nemo_squeezeformer.training.settings import value


def check(cfg: Any) -> None:
    """Refuse a composed recipe whose run would not start, would never end or would never validate.

    The function does not check a recipe without training data.

    Raises:
        UserError: the run has one of these problems. The message names the setting, the value and the remedy.
    """
    train = value(cfg, "model.train_ds")
    if not is_named(train):
        return
    epochs, steps = _number(cfg, "trainer.max_epochs"), _number(cfg, "trainer.max_steps", -1)
    for name, number in (("trainer.max_epochs", epochs), ("trainer.max_steps", steps)):
        if number == 0:
            raise UserError(f"{name}=0: the run would train nothing; give a number from 1, or remove the setting")
    if train.get("use_lhotse"):
        _check_lhotse(cfg)
    if steps < 0 and epochs is not None and epochs < 0:
        given = f"trainer.max_epochs={epochs} and trainer.max_steps={steps}"
        raise UserError(
            f"{given}: the run would never end, so the learning rate cannot be planned; set one of the two settings"
        )


def _number(cfg: Any, name: str, default: int | None = None) -> Any:
    """Return a setting that counts epochs or steps.

    Raises:
        UserError: the setting is not a whole number.
    """
    given = value(cfg, name, default)
    whole = given is None or (isinstance(given, (int, float)) and float(given).is_integer())
    if isinstance(given, bool) or not whole:
        raise UserError(f"{name}={given} is not a whole number; give the number of {name.rpartition('_')[2]}")
    return given


def _check_lhotse(cfg: Any) -> None:
    if value(cfg, "trainer.max_steps", -1) < 0:
        raise UserError(
            "with model.train_ds.use_lhotse=true the number of steps of an epoch is unknown: set "
            "trainer.max_steps, the number of optimizer steps of the whole run"
        )
    limit = value(cfg, "trainer.limit_train_batches")
    if not isinstance(limit, int):
        raise UserError(
            f"trainer.limit_train_batches={limit} with model.train_ds.use_lhotse=true: an epoch may never end; then "
            "the run never validates and saves no checkpoint; use data=lhotse (or lhotse_tarred), which sets this and "
            "related settings, or set trainer.limit_train_batches=1000 (batches)"
        )
    number = processes(value(cfg, "trainer.accelerator", "auto"), value(cfg, "trainer.devices", "auto"))
    number *= value(cfg, "trainer.num_nodes", 1)
    if number > 1 and value(cfg, "trainer.use_distributed_sampler") is not False:
        raise UserError(
            f"{number} processes with model.train_ds.use_lhotse=true need +trainer.use_distributed_sampler=false, "
            "because Lhotse distributes the data itself; data=lhotse sets this option"
        )
