"""The lengths and masks that a layer needs, at one frame rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..dispatch import in_graph
from .context import Context


@dataclass(frozen=True)
class Frames:
    """The lengths and masks of a batch.

    The S keys of attention are ``past`` frames that a stream remembers, followed by the T frames of the input.
    """

    lengths: Tensor  # (B,)  number of frames that are not masked
    padding: Tensor  # (B, T)  True at padding
    absent: Tensor  # (B, S)  True at keys without a frame: padding, and times before the start of a stream
    context: Context  # counted in frames of this rate
    padded: bool = True  # False if it is known that no key is absent
    step: int = 1  # number of encoder frames for each frame of this rate
    past: int = 0  # number of frames that a stream remembers; the valid frames are at the end
    advance: int = 0  # number of frames by which a stream advances; the next chunk repeats the other frames
    valid: Tensor | None = None  # (B,)  number of valid output frames, if this number is below lengths
    mask: Tensor | None = None  # value of ``blocked`` that all layers of a recorded graph share

    @classmethod
    def of(cls, lengths: Tensor, t: int, context: Context, valid: Tensor | None = None) -> Frames:
        """Return the lengths and masks of ``t`` frames.

        The first ``lengths`` (B,) frames are not masked. The first ``valid`` (B,) frames are valid output frames. None
        means that all frames that are not masked are valid output frames.
        """
        padding = torch.arange(t, device=lengths.device) >= lengths[:, None]  # (B, T)
        # Reading a value would wait for a GPU, and would become a constant in a recorded graph.
        looks = lengths.device.type == "cpu" and not in_graph()
        return cls(lengths, padding, padding, context, padded=bool(padding.any()) if looks else True, valid=valid)

    @classmethod
    def of_stream(cls, lengths: Tensor, t: int, context: Context, cached: Tensor, past: int, advance: int) -> Frames:
        """Return the lengths and masks of the next ``t`` frames of streams.

        The streams remember ``past`` frames. The last ``cached`` (B,) remembered frames are valid.
        """
        key = torch.arange(-past, t, device=lengths.device)
        absent = (key < -cached[:, None]) | (key >= lengths[:, None])  # (B, S)
        return cls(lengths, absent[:, past:], absent, context, past=past, advance=advance)

    @property
    def several_chunks(self) -> bool:
        """Return True in a step of a stream that is not a single chunk, so that its queries see different keys.

        The result is False while a graph is recorded, because a graph must not depend on the number of frames.
        """
        return self.advance > 0 and not in_graph() and self.absent.size(1) - self.past > max(self.context.chunk, 1)

    @property
    def blocked(self) -> Tensor | None:
        """Return a mask (B, T, S) that is True where query t must not see key s. A query at padding sees no key.

        None means that every query sees every key.
        """
        if self.mask is not None:
            return self.mask
        # torch.compile removes repeated computations, so the mask needs no cache.
        return self._mask() if torch.compiler.is_compiling() else self._kept_mask

    @cached_property
    def _kept_mask(self) -> Tensor | None:
        return self._mask()

    def _mask(self) -> Tensor | None:
        t = self.absent.size(1) - self.past
        unseen = self.unseen(0, t, 0, self.past + t)
        return None if unseen is None else unseen | self.absent[:, self.past :, None]

    def unseen(self, first: int, stop: int, start: int, end: int) -> Tensor | None:
        """Return a mask that is True where a key is absent or out of reach of a query.

        The queries are ``first`` to ``stop - 1``, and the keys are ``start`` to ``end - 1``. The shape is
        (B, stop - first, end - start), or a shape that expands to this shape. None means that every query sees every
        key.
        """
        device = self.absent.device
        query = torch.arange(self.past + first, self.past + stop, device=device)
        within = self.context.reach(query - self.past, torch.arange(start, end, device=device) - self.past)
        absent = self.absent[:, None, start:end] if self.padded else None
        if within is None:
            return absent
        return ~within[None] if absent is None else absent | ~within

    def halved(self) -> Frames:
        """Return the lengths and masks at half the frame rate. The mask of a pair is the mask of the first frame."""
        return Frames(
            lengths=(self.lengths + 1) // 2,
            padding=self.padding[:, ::2],
            absent=self.absent[:, self.past % 2 :: 2],  # skips a remembered frame without a pair
            context=self.context.halved(),
            padded=self.padded,
            step=2 * self.step,
            past=self.past // 2,
            advance=(self.advance + 1) // 2,
            valid=None if self.valid is None else (self.valid + 1) // 2,
        )

    def without_padding(self) -> Frames:
        """Return a copy in which convolutions treat every frame as valid."""
        return replace(self, padding=torch.zeros_like(self.padding))


def overlapping(x: Tensor, dim: int, width: int, step: int) -> Tensor:
    """Return pieces of ``width`` frames, which begin every ``step`` frames: (..., T, ...) -> (..., N, width, ...).

    The function replaces ``Tensor.unfold`` by operations that ONNX supports.
    """
    first = torch.arange(0, x.size(dim) - width + 1, step, device=x.device)
    index = first[:, None] + torch.arange(width, device=x.device)  # (N, width)
    return x.index_select(dim, index.view(-1)).view(*x.shape[:dim], -1, width, *x.shape[dim + 1 :])
