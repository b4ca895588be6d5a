"""The branches of the temporal U-Net, which give the frame rate of each layer (paper, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A range of layers, from ``start`` to ``stop - 1``, that run at one frame rate.

    The layers inside ``branches`` run at half of this frame rate. ``number`` counts the branches of an encoder from 1,
    in the order of the first layers. The ``Span`` of all layers of the encoder has the number 0.
    """

    number: int
    start: int
    stop: int
    branches: tuple[Span, ...] = ()

    def depth(self, layer: int | None = None) -> int:
        """Return how many times the frame rate is halved for ``layer``. None returns the maximum over all layers."""
        inner = [1 + b.depth(layer) for b in self.branches if layer is None or b.start <= layer < b.stop]
        return max(inner, default=0)

    @property
    def suffix(self) -> str:
        """Return the suffix of the names of the reduction layer and the recovery layer in the state dict.

        The first branch has no suffix, so that the names equal the names of NeMo 2.7.3.
        """
        return "" if self.number == 1 else f"_{self.number}"

    def all_branches(self) -> list[Span]:
        """Return the branches at all depths, ordered by number."""
        return [inside for branch in self.branches for inside in (branch, *branch.all_branches())]


def build_spans(n_layers: int, reduce: int | Sequence[int] | str | None, recover: int | Sequence[int] | None) -> Span:
    """Return the ``Span`` of all layers, with the branches that ``reduce`` and ``recover`` describe.

    A branch may have no layers. A branch without layers only reduces and recovers the frame rate.

    Args:
        n_layers: Number of layers.
        reduce: ``time_reduce_idx`` of the encoder.
        recover: ``time_recovery_idx`` of the encoder. Entry k of ``reduce`` and entry k of ``recover`` describe one
            branch.

    Raises:
        ValueError: An index is out of range, the lists have different lengths, or two branches cross.
    """
    if reduce is None:
        return Span(0, 0, n_layers)
    if isinstance(reduce, str):
        raise ValueError(f"time_reduce_idx={reduce!r}: expected 'auto', None, a layer index or a list of layer indices")
    starts = [reduce] if isinstance(reduce, int) else list(reduce)
    if recover is None:
        stops = [n_layers - 1] * len(starts)
    else:
        stops = [recover] if isinstance(recover, int) else list(recover)
    given = f"time_reduce_idx={reduce}, time_recovery_idx={recover}"
    if len(starts) != len(stops):
        raise ValueError(f"{given}: expected as many indices in time_recovery_idx as in time_reduce_idx, {len(starts)}")
    if not all(0 <= start <= stop < n_layers for start, stop in zip(starts, stops)):
        raise ValueError(f"{given}: expected 0 <= time_reduce_idx <= time_recovery_idx < n_layers={n_layers}")
    if starts != sorted(starts):
        raise ValueError(f"{given}: sort time_reduce_idx in ascending order, and time_recovery_idx in the same order")
    branches = [Span(number, start, stop) for number, (start, stop) in enumerate(zip(starts, stops), start=1)]
    for i, branch in enumerate(branches):
        crossing = [later for later in branches[i + 1 :] if later.start < branch.stop < later.stop]
        if crossing:
            raise ValueError(
                f"{given}: the branches {branch.start} to {branch.stop} and {crossing[0].start} to {crossing[0].stop} "
                "cross; a branch that starts inside another branch must end inside it"
            )
    return _nest(Span(0, 0, n_layers), branches)


def _nest(around: Span, branches: Sequence[Span]) -> Span:
    inside: list[Span] = []
    rest = list(branches)
    while rest:
        first = rest.pop(0)
        own = [branch for branch in rest if branch.start < first.stop]
        rest = rest[len(own) :]
        inside.append(_nest(first, own))
    return Span(around.number, around.start, around.stop, tuple(inside))
