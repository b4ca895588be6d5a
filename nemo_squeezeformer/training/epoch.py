"""What one epoch of training is: the utterances in its manifests, shared by the processes that Lightning starts."""

import json
import math
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from nemo_squeezeformer.errors import UserError


def manifest_files(named: Any) -> Iterator[str]:
    """The files behind a ``manifest_filepath``: joined by commas, in (nested) lists, or sharded.

    Shards are written as NeMo reads them: ``manifest__OP_0..511_CL_.json``, or with braces.
    """
    if isinstance(named, (list, tuple)):
        for one in named:
            yield from manifest_files(one)
    elif isinstance(named, str):  # no number: Lhotse's weight of the manifest before it
        for path in map(os.path.expanduser, named.split(",")):
            if os.path.exists(path) or not any(mark in path for mark in ("{", "(", "[", "<", "_OP_")):
                yield path
            else:
                from nemo.collections.asr.data.audio_to_text import expand_sharded_filepaths

                yield from expand_sharded_filepaths(path, "replicate", 1, 0)


def count(named: Any, shortest: float | None, longest: float | None) -> tuple[int, float]:
    """Utterances in the manifests, and their seconds, without those that NeMo leaves out for their duration.

    Raises:
        OSError, ValueError: a manifest cannot be read, or holds no JSON lines; none is named.
    """
    files = list(manifest_files(named))
    if not files:
        raise OSError("no manifest is named")
    counts = [
        _count(path, os.stat(path).st_mtime_ns, shortest or 0.0, math.inf if longest is None else longest)
        for path in files
    ]
    return sum(number for number, _ in counts), sum(seconds for _, seconds in counts)


@lru_cache(maxsize=4096)
def _count(path: str, changed: int, shortest: float, longest: float) -> tuple[int, float]:
    number, seconds = 0, 0.0
    with open(path, encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            duration = json.loads(line).get("duration")
            if duration is None or shortest <= duration <= longest:  # NeMo keeps what has no duration
                number, seconds = number + 1, seconds + (duration or 0.0)
    return number, seconds


def bucket_sizes(batch_size: int | list[int], named: Any) -> list[int]:
    """A batch size for each bucket in NeMo's own bucketing; out of one number, the shorter the utterances the larger.

    Raises:
        UserError: the buckets and the sizes are not of one number.
    """
    buckets = named if isinstance(named, (list, tuple)) else [named]
    sizes = (
        [batch_size * (len(buckets) - i) for i in range(len(buckets))] if isinstance(batch_size, int) else batch_size
    )
    if len(sizes) != len(buckets):
        raise UserError(
            f"model.train_ds.bucketing_batch_size={batch_size} has {len(sizes)} sizes for {len(buckets)} buckets in "
            f"model.train_ds.manifest_filepath={named}; give as many sizes as buckets, or one number"
        )
    return list(sizes)


def bucket_batches(named: Any, batch_size: int | list[int], shortest: float | None, longest: float | None) -> int:
    """Batches of an epoch where each bucket, a manifest or a list of them, has a batch size of its own."""
    sizes = bucket_sizes(batch_size, named)
    buckets = named if isinstance(named, (list, tuple)) else [named]
    return sum(math.ceil(count(bucket, shortest, longest)[0] / size) for bucket, size in zip(buckets, sizes))


def optimiser_steps(
    utterances: int, batch_size: float, processes: int, accumulate: int, drop_last: bool, limit: int | float | None
) -> int:
    """Steps in an epoch, as Lightning makes them and NeMo's ``compute_max_steps`` counts them.

    ``limit`` is ``trainer.limit_train_batches``: an int is a number of batches, a float a share of them.
    """
    share = math.ceil(utterances / processes) / batch_size
    batches = math.floor(share) if drop_last else math.ceil(share)
    if isinstance(limit, int):
        batches = min(batches, limit)
    elif limit is not None:
        batches = int(batches * limit)
    return math.ceil(batches / accumulate)


def accelerator(name: str) -> str:
    """``cuda``, ``mps`` or ``cpu``, chosen as Lightning chooses for ``auto`` and ``gpu``; another name as it stands."""
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

    if name not in ("auto", "gpu"):
        return name
    return "cuda" if CUDAAccelerator.is_available() else "mps" if MPSAccelerator.is_available() else "cpu"


def processes(name: str, devices: Any) -> int:
    """How many processes Lightning starts on a node for these ``trainer.accelerator`` and ``trainer.devices``."""
    from lightning.pytorch import accelerators

    kinds = {
        "cuda": accelerators.CUDAAccelerator,
        "mps": accelerators.MPSAccelerator,
        "cpu": accelerators.CPUAccelerator,
    }
    kind = kinds.get(accelerator(name))
    if kind is None:
        return devices if isinstance(devices, int) and devices > 0 else 1
    if devices in ("auto", None):
        return kind.auto_device_count()
    try:
        parsed = kind.parse_devices(devices)
    except Exception as error:  # Lightning's own kinds differ by accelerator
        given = f"trainer.devices={devices} with trainer.accelerator={name}"
        raise UserError(f"{given}: {error}; trainer.devices=auto takes what there is") from error
    return len(parsed) if isinstance(parsed, (list, tuple)) else int(parsed or 0)
