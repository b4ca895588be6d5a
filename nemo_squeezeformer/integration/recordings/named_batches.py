"""Batches with the names of their recordings. The names travel from a worker to the training loop."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device


@dataclass
class Names:
    """The recordings of a batch.

    Args:
        files: paths of the recordings, or identifiers of Lhotse's cuts.
        problems: the recordings that are left out, each with the reason.
        usable: False if no recording can be used. The batch then contains a second of silence.
    """

    files: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    usable: bool = True


class NamedBatch(tuple[Any, ...]):
    """A batch of NeMo with the names of its recordings. A pinned or moved batch keeps the names."""

    names: Names = Names()

    def pin_memory(self) -> NamedBatch:
        pinned = (part.pin_memory() if isinstance(part, torch.Tensor) else part for part in self)
        return _named(NamedBatch(pinned), self.names)

    def to(self, device: torch.device, **_: Any) -> NamedBatch:
        return _named(NamedBatch(move_data_to_device(tuple(self), device)), self.names)


def with_names(batch: Any, names: Names) -> Any:
    """Return the batch with ``names``, which become an attribute of the batch.

    A batch that cannot have attributes, for example a dictionary, is returned without names.
    """
    with contextlib.suppress(AttributeError):
        return _named(NamedBatch(batch) if type(batch) in (tuple, list) else batch, names)
    return batch


def names_of(batch: Any) -> Names:
    """Return the names of a batch. They are empty for a batch without names."""
    found = getattr(batch, "names", None)
    return found if isinstance(found, Names) else Names()


def _named(batch: Any, names: Names) -> Any:
    batch.names = names
    return batch
