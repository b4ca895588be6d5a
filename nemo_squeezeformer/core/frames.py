"""What a layer must know about the frames it sees, at one frame rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .context import Context


@dataclass(frozen=True)
class Frames:
    """Lengths and masks of a batch. S keys are the T frames at hand after the ``past`` ones that a stream remembers."""

    lengths: Tensor  # (B,)
    padding: Tensor  # (B, T)     True at padding
    blocked: Tensor | None  # (B, T, S)  True where query t must not see key s; None for local attention, which has no S
    context: Context  # in frames of this rate
    step: int = 1  # how many frames of the full rate are one here
    past: int = 0  # frames that a stream remembers, valid ones last
    advance: int = 0  # frames at hand by which a stream moves on; it sees the others again

    @classmethod
    def of(cls, lengths: Tensor, t: int, context: Context, dense: bool = True) -> Frames:
        """Masks for ``t`` frames of which ``lengths`` (B,) are valid; ``dense`` for one of queries against keys."""
        valid = torch.arange(t, device=lengths.device) < lengths[:, None]  # (B, T)
        if not dense:
            return cls(lengths, ~valid, None, context)
        return cls._seeing(lengths, valid, valid, context)

    @classmethod
    def of_stream(cls, lengths: Tensor, t: int, context: Context, cached: Tensor, past: int, advance: int) -> Frames:
        """Masks for the next ``t`` frames of streams that remember ``past`` frames, ``cached`` (B,) of them valid."""
        key = torch.arange(-past, t, device=lengths.device)
        keys = (key >= -cached[:, None]) & (key < lengths[:, None])  # (B, S)
        frames = cls._seeing(lengths, keys[:, past:], keys, context, past)
        return replace(frames, advance=advance)

    @classmethod
    def _seeing(cls, lengths: Tensor, queries: Tensor, keys: Tensor, context: Context, past: int = 0) -> Frames:
        seen = queries[:, :, None] & keys[:, None, :]  # (B, T, S)
        within = context.reach(queries.size(1), past, lengths.device)
        if within is not None:
            seen = seen & within
        return cls(lengths, ~queries, ~seen, context, past=past)

    def halved(self) -> Frames:
        """The same frames after a time reduction by two: the first of each pair stands for both."""
        blocked = None if self.blocked is None else self.blocked[:, ::2, self.past % 2 :: 2]  # whole pairs of the past
        return replace(
            self,
            lengths=(self.lengths + 1) // 2,
            padding=self.padding[:, ::2],
            blocked=blocked,
            context=self.context.halved(),
            step=2 * self.step,
            past=self.past // 2,
            advance=(self.advance + 1) // 2,
        )

    def without_padding(self) -> Frames:
        """The same frames, every one of which convolutions take for valid."""
        return replace(self, padding=torch.zeros_like(self.padding))


def overlapping(x: Tensor, dim: int, width: int, step: int) -> Tensor:
    """(..., T, ...) -> (..., N, width, ...), a piece every ``step``: ``Tensor.unfold`` in words that ONNX has too."""
    first = torch.arange(0, x.size(dim) - width + 1, step, device=x.device)
    index = first[:, None] + torch.arange(width, device=x.device)  # (N, width)
    return x.index_select(dim, index.view(-1)).view(*x.shape[:dim], -1, width, *x.shape[dim + 1 :])
