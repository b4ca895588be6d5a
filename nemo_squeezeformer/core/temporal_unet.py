"""The temporal U-Net: which layers run at half the frame rate, and its two ends (paper, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .convolution import pointwise
from .cpu.depthwise import depthwise
from .feed_forward import init_uniform
from .frames.masks import Frames
from .frames.state import ReductionState, with_left_context


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


class TimeReduction(nn.Module):
    """Depthwise-separable convolution with stride 2: frame t of the output sees five frames from 2t - left on.

    With ``left=3`` it looks no further ahead than the pair it merges, so it streams as it is.
    """

    KERNEL = 5

    def __init__(self, d_model: int, left: int = 3):
        super().__init__()
        self.left = left
        self.dw_conv = nn.Conv1d(d_model, d_model, self.KERNEL, stride=2, groups=d_model)
        self.pw_conv = nn.Conv1d(d_model, d_model, kernel_size=1)
        init_uniform(self.dw_conv, fan_in=self.KERNEL)
        init_uniform(self.pw_conv, fan_in=d_model)

    def forward(self, x: Tensor, frames: Frames, state: ReductionState | None = None) -> Tensor:
        """(B, T, D) -> (B, ceil(T / 2), D)"""
        if frames.padded:
            x = x.masked_fill(frames.padding[..., None], 0.0)
        left = self.left
        if state is not None:
            past, left = state.reduction.transpose(1, 2), 0
            x, past = with_left_context(x, past, 1, frames.advance)
            state.reduction = past.transpose(1, 2)
        right = self.KERNEL - 1 - self.left  # with it an odd last frame has its window, too
        x = depthwise(self.dw_conv, x, left, right)
        return pointwise(self.pw_conv, x)


def upsample(x: Tensor, t: int) -> Tensor:
    """(B, ceil(t / 2), D) -> (B, t, D) by repeating each frame.

    By index, not by repeating and cutting: a cut would tie a traced graph to odd or to even ``t``.
    """
    return x.index_select(1, torch.arange(t, device=x.device) // 2)


def refuse_reduction(reduction: str | None, position: int | None, factor: int) -> None:
    """Raises ValueError where ``reduction`` of NeMo's ConformerEncoder is on: this U-Net is what serves instead."""
    if reduction and factor > 1:
        raise ValueError(
            f"reduction={reduction!r}, reduction_position={position}, reduction_factor={factor}: here time_reduce_idx "
            "and time_recovery_idx reduce the frame rate between layers, and subsampling_factor reduces it before "
            "them; set reduction=None"
        )


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
