"""Which layers run at which frame rate: the branches of the temporal U-Net (paper, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Layers ``start`` to the one before ``stop``, at one frame rate but for ``branches``, which halve it.

    ``number`` counts the branches of an encoder from 1, in the order of their first layers; the encoder itself is 0.
    """

    number: int
    start: int
    stop: int
    branches: tuple[Span, ...] = ()

    def depth(self, layer: int | None = None) -> int:
        """How many times the frame rate is halved at ``layer``, or at most."""
        inner = [1 + b.depth(layer) for b in self.branches if layer is None or b.start <= layer < b.stop]
        return max(inner, default=0)

    @property
    def suffix(self) -> str:
        """Of the names of its two ends in the state dict; the first branch has NeMo 2.7.3's."""
        return "" if self.number == 1 else f"_{self.number}"

    def all_branches(self) -> list[Span]:
        """The branches inside it, whatever their depth, by number."""
        return [inside for branch in self.branches for inside in (branch, *branch.all_branches())]


def build_spans(n_layers: int, reduce: int | Sequence[int] | str | None, recover: int | Sequence[int] | None) -> Span:
    """All layers, as ``time_reduce_idx`` and ``time_recovery_idx`` divide them; entry k of the two belong together.

    A branch without layers, which only reduces and recovers, is one too.

    Raises:
        ValueError: for indices that are out of range, of which one list has more, or whose branches cross.
    """
    if reduce is None:
        return Span(0, 0, n_layers)
    if isinstance(reduce, str):
        raise ValueError(f"time_reduce_idx={reduce!r}: expected 'auto', None, a layer or a list of layers")
    starts = [reduce] if isinstance(reduce, int) else list(reduce)
    if recover is None:
        stops = [n_layers - 1] * len(starts)
    else:
        stops = [recover] if isinstance(recover, int) else list(recover)
    given = f"time_reduce_idx={reduce}, time_recovery_idx={recover}"
    if len(starts) != len(stops):
        raise ValueError(f"{given}: as many recoveries as reductions are needed, {len(starts)} of each")
    if not all(0 <= start <= stop < n_layers for start, stop in zip(starts, stops)):
        raise ValueError(f"{given}: expected 0 <= time_reduce_idx <= time_recovery_idx < n_layers={n_layers}")
    if starts != sorted(starts):
        raise ValueError(f"{given}: list the reductions from the first layer to the last, each with its recovery")
    branches = [Span(number, start, stop) for number, (start, stop) in enumerate(zip(starts, stops), start=1)]
    for i, branch in enumerate(branches):
        crossing = [later for later in branches[i + 1 :] if later.start < branch.stop < later.stop]
        if crossing:
            raise ValueError(
                f"{given}: the branches {branch.start} to {branch.stop} and {crossing[0].start} to {crossing[0].stop} "
                "cross; recover first what was reduced last, as brackets close"
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
