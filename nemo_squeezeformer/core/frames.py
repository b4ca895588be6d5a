"""What a layer must know about the frames it sees, at one frame rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .context import Context


@dataclass(frozen=True)
class Frames:
    """Lengths and masks of a batch. S keys are the T frames at hand after the ones a stream has cached."""

    lengths: Tensor  # (B,)
    padding: Tensor  # (B, T)     True at padding
    blocked: Tensor | None  # (B, T, S)  True where query t must not see key s; None for local attention, which has no S
    context: Context  # in frames of this rate
    step: int = 1  # how many frames of the full rate are one here

    @classmethod
    def of(cls, lengths: Tensor, t: int, context: Context, cached: int = 0, dense: bool = True) -> Frames:
        """Masks for ``t`` frames of which ``lengths`` (B,) are valid; ``dense`` for one of queries against keys."""
        valid = torch.arange(t, device=lengths.device) < lengths[:, None]  # (B, T)
        if not dense:
            return cls(lengths, ~valid, None, context)
        past = valid.new_ones(valid.size(0), cached)
        seen = valid[:, :, None] & torch.cat([past, valid], dim=1)[:, None, :]  # (B, T, S)
        within = context.reach(t, cached, lengths.device)
        if within is not None:
            seen = seen & within
        return cls(lengths, ~valid, ~seen, context)

    def halved(self) -> Frames:
        """The same frames after a time reduction by two: the first of each pair stands for both."""
        blocked = None if self.blocked is None else self.blocked[:, ::2, ::2]
        return Frames((self.lengths + 1) // 2, self.padding[:, ::2], blocked, self.context.halved(), 2 * self.step)

    def without_padding(self) -> Frames:
        """The same frames, every one of which convolutions take for valid."""
        return replace(self, padding=torch.zeros_like(self.padding))


def overlapping(x: Tensor, dim: int, width: int, step: int) -> Tensor:
    """(..., T, ...) -> (..., N, width, ...), a piece every ``step``: ``Tensor.unfold`` in words that ONNX has too."""
    first = torch.arange(0, x.size(dim) - width + 1, step, device=x.device)
    index = first[:, None] + torch.arange(width, device=x.device)  # (N, width)
    return x.index_select(dim, index.flatten()).view(*x.shape[:dim], -1, width, *x.shape[dim + 1 :])
