"""How far a frame may look: NeMo's att_context_* settings, and what they mean at each frame rate."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

STYLES = ("regular", "chunked_limited", "chunked_limited_with_rc")


@dataclass(frozen=True)
class Context:
    """What one frame sees, in frames of one rate; -1 is unlimited.

    Without chunks, ``left`` and ``right`` count from the frame itself. With a ``chunk`` they count from the first and
    the last frame of its chunk, so that all frames of a chunk see the same.
    """

    left: int = -1
    right: int = -1
    chunk: int = 0

    @classmethod
    def of(cls, size: Sequence[int], style: str) -> Context:
        """What ``att_context_size`` says in an ``att_context_style``."""
        if style == "chunked_limited_with_rc":
            left, chunk, right = size
            return cls(left, right, chunk) if chunk > 0 else cls()
        left, right = size
        if style == "chunked_limited" and right >= 0:
            return cls(left, 0, right + 1)
        return cls(left, right)

    def halved(self) -> Context:
        """The same in frames of twice the duration; what is left of a pair of frames is out of reach."""
        left, right = (size if size < 0 else size // 2 for size in (self.left, self.right))
        return Context(left, right, self.chunk // 2)

    def end_of_chunk(self, frame: int) -> int:
        """The last frame of the chunk that ``frame`` is in."""
        return frame // self.chunk * self.chunk + self.chunk - 1

    def keys(self, first: int, stop: int) -> tuple[int, int]:
        """Where the keys begin and end that queries ``first`` to the one before ``stop`` reach, in frames from 0 on.

        An unlimited context reaches from the least integer of 64 bits to the largest.
        """
        last = stop - 1
        if self.chunk:
            first, last = first // self.chunk * self.chunk, self.end_of_chunk(last)
        start = -sys.maxsize if self.left < 0 else first - self.left
        return start, sys.maxsize if self.right < 0 else last + self.right + 1

    def reach(self, query: Tensor, key: Tensor) -> Tensor | None:
        """(T,), (S,) -> (T, S) True where frame ``key`` lies within reach of frame ``query``; None if all do."""
        if self.left < 0 and self.right < 0:
            return None
        first = last = query[:, None]
        if self.chunk:
            first = first // self.chunk * self.chunk
            last = first + self.chunk - 1
        within = torch.ones(query.size(0), key.size(0), dtype=torch.bool, device=key.device)
        if self.left >= 0:
            within = within & (first - key <= self.left)
        if self.right >= 0:
            within = within & (key - last <= self.right)
        return within


class ContextSettings:
    """The sizes that an encoder was trained for, and the rule that picks one for a forward.

    Args:
        size: ``att_context_size``: a pair, several pairs, or None for unlimited.
        probs: ``att_context_probs``: how likely each pair is in training; None for alike.
        style: ``att_context_style``.
        chunks: ``att_chunk_context_size``: left contexts, chunks and right contexts, one of each drawn in training.
        factor: how many frames are one where the temporal U-Net is deepest.

    Raises:
        ValueError: for sizes that are none, or chunks that the temporal U-Net would cut; it names the nearest others.
    """

    def __init__(
        self,
        size: Sequence[Any] | None,
        probs: Sequence[float] | None = None,
        style: str = "regular",
        chunks: Sequence[Sequence[int]] | None = None,
        factor: int = 1,
    ):
        if style not in STYLES:
            raise ValueError(f"att_context_style={style!r}: expected one of {', '.join(STYLES)}")
        self.style, self.factor = style, factor
        self.sizes = self._all(size)
        for one in self.sizes:
            self.check(one, several=len(self.sizes) > 1)
        self.probs = [1.0 / len(self.sizes)] * len(self.sizes) if not probs else [float(p) for p in probs]
        if len(self.probs) != len(self.sizes) or abs(sum(self.probs) - 1.0) > 1e-6 or min(self.probs) < 0:
            raise ValueError(
                f"att_context_probs={list(probs or [])}: one probability for each of the {len(self.sizes)} sizes of "
                "att_context_size is needed, and 1 as their sum"
            )
        self.chunks = None if chunks is None else self._ranges(chunks)
        self.default = self.sizes[0]

    def of(self, training: bool) -> Context:
        """How far frames see in one forward: by default or, in training, by a size drawn from several."""
        size = self.default
        if training and self.chunks is not None:
            size = [random.choice(sizes) for sizes in self.chunks]
        elif training and len(self.sizes) > 1:
            size = random.choices(self.sizes, weights=self.probs)[0]
        return Context.of(size, self.style)

    def check(self, size: Sequence[int], several: bool = True) -> None:
        """Raises ValueError where ``size`` is none; ``several``: others are trained too, so one may be offline."""
        given = f"att_context_size={list(size)}"
        if self.style == "chunked_limited_with_rc":
            if len(size) != 3 or min(size) < -1:
                raise ValueError(f"{given}: att_context_style={self.style!r} takes [left, chunk, right] frames")
            if size[1] == 0:
                raise ValueError(f"{given}: a chunk of 0 frames; 1 or more, or -1 for no chunks")
            self._check_halves(given, "chunk", size[1])
            self._check_halves(given, "right", size[2])
            return
        if len(size) != 2 or min(size) < -1:
            raise ValueError(f"{given}: frames to the left and right, -1 for unlimited")
        if self.style == "chunked_limited":
            self._check_chunks(given, size[0], size[1], several)

    def _check_chunks(self, given: str, left: int, right: int, several: bool) -> None:
        if right < 0:
            if several:
                return
            raise ValueError(
                f"{given}: with att_context_style='chunked_limited' (streaming=True has it too) chunks are right + 1 "
                "frames, so right must be 0 or more"
            )
        chunk = right + 1
        if chunk % self.factor or left % chunk and left > 0:
            chunks = _multiples(chunk, self.factor, least=self.factor)
            nearest = [[new * n, new - 1] for new in chunks for n in ([-1] if left < 0 else _around(left, new))]
            better = " or ".join(str([-1, size[1]] if left < 0 else size) for size in nearest)
            halves = "" if self.factor == 1 else f", and the chunk of {self.factor}{self._reason()}"
            raise ValueError(
                f"{given}: chunks that stream are right + 1 = {chunk} frames; left must be a multiple of the chunk"
                f"{halves}; nearest are {better}"
            )

    def _check_halves(self, given: str, what: str, frames: int) -> None:
        if frames > 0 and frames % self.factor:
            least = self.factor if what == "chunk" else 0
            better = " or ".join(map(str, _multiples(frames, self.factor, least)))
            raise ValueError(
                f"{given}: {what} {frames} must be a multiple of {self.factor}{self._reason()}; nearest are {better}"
            )

    def _reason(self) -> str:
        return f", as {self.factor} frames are one inside the temporal U-Net (time_reduce_idx=None: there is none)"

    def _all(self, size: Sequence[Any] | None) -> list[list[int]]:
        unlimited = [-1] * (3 if self.style == "chunked_limited_with_rc" else 2)
        if not size or list(size) == [-1, -1]:
            return [unlimited]
        return [list(size)] if isinstance(size[0], int) else [list(one) for one in size]

    def _ranges(self, chunks: Sequence[Sequence[int]]) -> list[list[int]]:
        given = f"att_chunk_context_size={[list(sizes) for sizes in chunks]}"
        if self.style != "chunked_limited_with_rc":
            raise ValueError(f"{given}: needs att_context_style='chunked_limited_with_rc', not {self.style!r}")
        if len(chunks) != 3 or not all(len(sizes) for sizes in chunks):
            raise ValueError(f"{given}: expected three lists, of left contexts, of chunks and of right contexts")
        for what, sizes in zip(("chunk", "right"), chunks[1:]):
            for frames in sizes:
                self._check_halves(given, what, frames)
        return [list(sizes) for sizes in chunks]


def streamed(
    causal_downsampling: bool,
    att_context_style: str | None,
    conv_context_style: str,
    conv_context_size: str | Sequence[int] | None,
) -> tuple[str, str | Sequence[int] | None]:
    """``att_context_style`` and ``conv_context_size`` of an encoder with ``streaming=True``, unless they are given.

    Raises:
        ValueError: for NeMo's causal downsampling, whose length depends on where the chunks end.
    """
    if causal_downsampling:
        raise ValueError("streaming=True has a causal subsampling of its own: leave out causal_downsampling")
    if conv_context_size is None and conv_context_style == "regular":
        conv_context_size = "causal"
    return att_context_style or "chunked_limited", conv_context_size


def _multiples(frames: int, of: int, least: int) -> list[int]:
    """The multiples of ``of`` nearest to ``frames``, below and above it, from ``least`` on."""
    return sorted({n for n in (frames // of * of, -(-frames // of) * of) if n >= least})


def _around(left: int, chunk: int) -> list[int]:
    """How many chunks make ``left`` frames: exactly, or the numbers below and above."""
    return sorted({left // chunk, -(-left // chunk)})
