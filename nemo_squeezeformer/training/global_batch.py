"""The global batch: the number of utterances of one optimizer step, over all processes."""

from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.devices import processes
from nemo_squeezeformer.training.settings import value

LIBRISPEECH_MEAN_SECONDS = 12.3


@dataclass(frozen=True)
class GlobalBatch:
    """The global batch of a recipe.

    Attributes:
        utterances: number of utterances of one optimizer step; the average number if the batches have different sizes.
        words: the settings whose product is this number, as a text for messages.
    """

    utterances: float
    words: str


def global_batch(cfg: Any) -> GlobalBatch:
    """Return the global batch of a composed recipe.

    Raises:
        UserError: the global batch is 0, a setting is not a number, or Lightning refuses the devices.
    """
    key, size = _batch(value(cfg, "model.train_ds", {}), value(cfg, "schedule.mean_seconds", LIBRISPEECH_MEAN_SECONDS))
    devices, nodes = value(cfg, "trainer.devices", "auto"), value(cfg, "trainer.num_nodes", 1)
    accumulate = value(cfg, "trainer.accumulate_grad_batches", 1)
    given = value(cfg, f"model.train_ds.{key}")
    counts = {f"model.train_ds.{key}": size, "trainer.num_nodes": nodes, "trainer.accumulate_grad_batches": accumulate}
    for name, count in counts.items():
        if count is not None and not isinstance(count, (int, float)):
            raise UserError(f"{name}={count} is not a number; give the number of utterances, machines or batches")
    number = processes(value(cfg, "trainer.accelerator", "auto"), devices) * nodes
    words = f"model.train_ds.{key}={given} x {number} processes x trainer.accumulate_grad_batches={accumulate}"
    if not size or size * number * accumulate <= 0:
        where = f"trainer.devices={devices}, trainer.num_nodes={nodes}"
        raise UserError(f"the global batch is 0: {words} ({where}); set each of these settings to 1 or more")
    return GlobalBatch(size * number * accumulate, words)


def utterances_of_batch(cfg: Any, seconds: float) -> int:
    """Return the number of utterances of a batch of one process if all utterances have this length in seconds."""
    train = dict(value(cfg, "model.train_ds", {}))
    for name in ("bucket_batch_size", "bucketing_batch_size"):  # the last bucket has the longest utterances
        sizes = train.get(name)
        if sizes:
            train[name] = sizes[-1:] if isinstance(sizes, list) else [sizes]
    _, size = _batch(train, seconds)
    return max(1, int(size or 1))


def _batch(train: dict[str, Any], mean_seconds: float) -> tuple[str, float | None]:
    """Return the name of the setting that limits the batch of one process, and the number of utterances of the batch.

    The number is None if no setting limits the batch.
    """
    if train.get("is_tarred") and train.get("bucketing_batch_size"):
        sizes, buckets = train["bucketing_batch_size"], train.get("manifest_filepath")
        if isinstance(sizes, int):  # NeMo scales a single number up for buckets of shorter utterances
            sizes = [sizes * (i + 1) for i in range(len(buckets) if isinstance(buckets, list) else 1)]
        return "bucketing_batch_size", sum(sizes) / len(sizes)
    if sizes := train.get("bucket_batch_size"):
        if not isinstance(sizes, list):
            raise UserError(
                f"model.train_ds.bucket_batch_size={sizes} is not a list; give the number of utterances for each "
                "bucket, for example [32,16,8]"
            )
        return "bucket_batch_size", sum(sizes) / len(sizes)
    size, seconds, quadratic = map(train.get, ("batch_size", "batch_duration", "quadratic_duration"))
    if not seconds:
        return "batch_size", size
    each = mean_seconds + (mean_seconds**2 / quadratic if quadratic else 0.0)  # the formula of Lhotse's TimeConstraint
    return "batch_duration", min(size or float("inf"), max(1.0, seconds / each))
