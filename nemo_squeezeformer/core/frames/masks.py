"""What a layer must know about the frames it sees, at one frame rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..dispatch import in_graph
from .context import Context


@dataclass(frozen=True)
class Frames:
    """Lengths and masks of a batch. S keys are the T frames at hand after the ``past`` ones that a stream remembers."""

    lengths: Tensor  # (B,) of what masks let in
    padding: Tensor  # (B, T)  True at padding
    absent: Tensor  # (B, S)  True at keys that are none: padding, and what a stream has not seen yet
    context: Context  # in frames of this rate
    padded: bool = True  # False where it is known that no key is absent
    step: int = 1  # how many frames of the full rate are one here
    past: int = 0  # frames that a stream remembers, valid ones last
    advance: int = 0  # frames at hand by which a stream moves on; it sees the others again
    valid: Tensor | None = None  # (B,) of what is output, where that is less
    mask: Tensor | None = None  # ``blocked``, for a graph that would have to compute it in each layer

    @classmethod
    def of(cls, lengths: Tensor, t: int, context: Context, valid: Tensor | None = None) -> Frames:
        """Masks for ``t`` frames of which they let in ``lengths`` (B,), and of these ``valid`` (B,) are output."""
        padding = torch.arange(t, device=lengths.device) >= lengths[:, None]  # (B, T)
        # Looking at values is a wait on a GPU, and a constant in a graph.
        looks = lengths.device.type == "cpu" and not in_graph()
        return cls(lengths, padding, padding, context, padded=bool(padding.any()) if looks else True, valid=valid)

    @classmethod
    def of_stream(cls, lengths: Tensor, t: int, context: Context, cached: Tensor, past: int, advance: int) -> Frames:
        """Masks for the next ``t`` frames of streams that remember ``past`` frames, ``cached`` (B,) of them valid."""
        key = torch.arange(-past, t, device=lengths.device)
        absent = (key < -cached[:, None]) | (key >= lengths[:, None])  # (B, S)
        return cls(lengths, absent[:, past:], absent, context, past=past, advance=advance)

    @property
    def blocked(self) -> Tensor | None:
        """(B, T, S) True where query t must not see key s, and for all keys where it is padding; None if all see all"""
        if self.mask is not None:
            return self.mask
        return self._mask() if torch.compiler.is_compiling() else self._kept_mask  # a compiler keeps what is alike

    @cached_property
    def _kept_mask(self) -> Tensor | None:
        return self._mask()

    def _mask(self) -> Tensor | None:
        t = self.absent.size(1) - self.past
        unseen = self.unseen(0, t, 0, self.past + t)
        return None if unseen is None else unseen | self.absent[:, self.past :, None]

    def unseen(self, first: int, stop: int, start: int, end: int) -> Tensor | None:
        """(B, stop - first, end - start) or what expands to it: True where keys ``start`` to the one before ``end`` are
        absent, or out of reach of queries ``first`` to the one before ``stop``; None if these see them all.
        """
        device = self.absent.device
        query = torch.arange(self.past + first, self.past + stop, device=device)
        within = self.context.reach(query - self.past, torch.arange(start, end, device=device) - self.past)
        absent = self.absent[:, None, start:end] if self.padded else None
        if within is None:
            return absent
        return ~within[None] if absent is None else absent | ~within

    def halved(self) -> Frames:
        """The same frames after a time reduction by two: the first of each pair stands for both."""
        return replace(
            self,
            lengths=(self.lengths + 1) // 2,
            padding=self.padding[:, ::2],
            absent=self.absent[:, self.past % 2 :: 2],  # whole pairs of the past
            context=self.context.halved(),
            step=2 * self.step,
            past=self.past // 2,
            advance=(self.advance + 1) // 2,
            valid=None if self.valid is None else (self.valid + 1) // 2,
            mask=None,
        )

    def without_padding(self) -> Frames:
        """The same frames, every one of which convolutions take for valid."""
        return replace(self, padding=torch.zeros_like(self.padding))


def overlapping(x: Tensor, dim: int, width: int, step: int) -> Tensor:
    """(..., T, ...) -> (..., N, width, ...), a piece every ``step``: ``Tensor.unfold`` in words that ONNX has too."""
    first = torch.arange(0, x.size(dim) - width + 1, step, device=x.device)
    index = first[:, None] + torch.arange(width, device=x.device)  # (N, width)
    return x.index_select(dim, index.view(-1)).view(*x.shape[:dim], -1, width, *x.shape[dim + 1 :])
