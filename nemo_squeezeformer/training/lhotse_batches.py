"""Lhotse's batches of so many seconds: nobody knows beforehand how many make an epoch."""

from typing import Any

from nemo_squeezeformer.errors import UserError

SOURCES = ("manifest_filepath", "cuts_path", "shar_path", "input_cfg")


def utterances(train: dict[str, Any], mean_seconds: float) -> float | None:
    """About how many utterances of the mean length a batch holds; None where nothing bounds it.

    Args:
        train: a resolved ``train_ds``.
    """
    fixed = train.get("bucket_batch_size")
    if fixed:
        return sum(fixed) / len(fixed)
    size, seconds, quadratic = map(train.get, ("batch_size", "batch_duration", "quadratic_duration"))
    if seconds is None:
        return size
    each = mean_seconds + (mean_seconds**2 / quadratic if quadratic else 0.0)  # as Lhotse's TimeConstraint counts
    return min(size or float("inf"), max(1.0, seconds / each))


def check(train: dict[str, Any], trainer: dict[str, Any], processes: int, a_pass: int | None) -> None:
    """Refuse a run with Lhotse that would not start, never validate, or share its data out wrongly.

    Args:
        train: a resolved ``train_ds``; without data there is nothing to refuse yet.
        trainer: a resolved ``trainer``.
        processes: of the whole run.
        a_pass: about how many optimiser steps one pass over the data makes, where that is known.
    """
    if all(train.get(source) in (None, "???") for source in SOURCES):
        return
    if (trainer.get("max_steps") or -1) < 0:
        about = f"; one pass over the data makes about {a_pass:,}" if a_pass else ""
        raise UserError(
            "with model.train_ds.use_lhotse=true the steps of an epoch are not known beforehand: set "
            f"trainer.max_steps, the optimiser steps of the whole run{about}"
        )
    limit = trainer.get("limit_train_batches")
    if not isinstance(limit, int):
        raise UserError(
            f"trainer.limit_train_batches={limit} with model.train_ds.use_lhotse=true: an epoch need not end, and "
            "nothing would be validated or saved; data=lhotse (or lhotse_tarred) sets that and its like, or give "
            "trainer.limit_train_batches=1000 (batches)"
        )
    if processes > 1 and trainer.get("use_distributed_sampler") is not False:
        raise UserError(
            f"{processes} processes with model.train_ds.use_lhotse=true need +trainer.use_distributed_sampler=false, "
            "for Lhotse shares the data out itself; data=lhotse sets it"
        )
