"""The context of attention: NeMo's att_context_* settings, and the meaning of these settings at each frame rate."""

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
    """The number of frames that a frame sees on each side. -1 means unlimited.

    The numbers count frames at one frame rate. For layers at half this frame rate, use ``halved()``.

    If ``chunk`` is 0, ``left`` and ``right`` count from the frame itself. Otherwise a chunk has ``chunk`` frames,
    ``left`` counts from the first frame of the chunk, and ``right`` counts from the last frame of the chunk. Then all
    frames of a chunk see the same frames.
    """

    left: int = -1
    right: int = -1
    chunk: int = 0

    @classmethod
    def of(cls, size: Sequence[int], style: str) -> Context:
        """Return the context for the ``att_context_size`` ``size`` with the ``att_context_style`` ``style``."""
        if style == "chunked_limited_with_rc":
            left, chunk, right = size
            return cls(left, right, chunk) if chunk > 0 else cls()
        left, right = size
        if style == "chunked_limited" and right >= 0:
            return cls(left, 0, right + 1)
        return cls(left, right)

    def halved(self) -> Context:
        """Return this context at half the frame rate, at which a frame is a pair of frames of this frame rate.

        A pair of frames is in reach only if both frames are in reach.
        """
        left, right = (size if size < 0 else size // 2 for size in (self.left, self.right))
        return Context(left, right, self.chunk // 2)

    def end_of_chunk(self, frame: int) -> int:
        """Return the last frame of the chunk that contains ``frame``."""
        return frame // self.chunk * self.chunk + self.chunk - 1

    def keys(self, first: int, stop: int) -> tuple[int, int]:
        """Return the range (start, end) of the keys that the queries ``first`` to ``stop - 1`` reach.

        ``end`` is exclusive. In an unlimited context ``start`` is ``-sys.maxsize`` and ``end`` is ``sys.maxsize``.
        """
        last = stop - 1
        if self.chunk:
            first, last = first // self.chunk * self.chunk, self.end_of_chunk(last)
        start = -sys.maxsize if self.left < 0 else first - self.left
        return start, sys.maxsize if self.right < 0 else last + self.right + 1

    def reach(self, query: Tensor, key: Tensor) -> Tensor | None:
        """Return a mask (T, S) that is True where frame ``key`` (S,) is in reach of frame ``query`` (T,).

        Return None if the context is unlimited.
        """
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
    """The context sizes of an encoder, and the choice of a size for each forward pass.

    Args:
        size: ``att_context_size`` of the encoder: a size, a list of sizes, or None for unlimited.
        probs: ``att_context_probs`` of the encoder: the probability of each size in training. None means equal
            probabilities.
        style: ``att_context_style`` of the encoder.
        chunks: ``att_chunk_context_size`` of the encoder: lists of left contexts, chunk sizes and right contexts. Each
            training step draws a value from each list.
        factor: Number of encoder frames that become one frame at the lowest frame rate of the temporal U-Net.

    Raises:
        ValueError: A size does not fit the style, or the temporal U-Net would cut the chunks of a size. The message
            names the nearest sizes that work.
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
        given = probs if len(self.sizes) > 1 else None  # a single size needs no probability
        self.probs = [float(p) for p in given] if given else [1.0 / len(self.sizes)] * len(self.sizes)
        if len(self.probs) != len(self.sizes) or abs(sum(self.probs) - 1.0) > 1e-6 or min(self.probs) < 0:
            raise ValueError(
                f"att_context_probs={list(probs or [])}: expected one probability for each of the {len(self.sizes)} "
                "sizes of att_context_size, with the sum 1"
            )
        self.chunks = None if chunks is None else self._ranges(chunks)
        self.default = self.sizes[0]

    def of(self, training: bool) -> Context:
        """Return the context of a forward pass.

        In training with several sizes, the size is random. Otherwise the size is the default size.
        """
        size = self.default
        if training and self.chunks is not None:
            size = [random.choice(sizes) for sizes in self.chunks]
        elif training and len(self.sizes) > 1:
            size = random.choices(self.sizes, weights=self.probs)[0]
        return Context.of(size, self.style)

    def check(self, size: Sequence[int], several: bool = True) -> None:
        """Raise ``ValueError`` if ``size`` does not fit the style or the temporal U-Net.

        If ``several`` is True, the encoder has several sizes. Then ``chunked_limited`` also accepts a size that is
        unlimited to the right.
        """
        given = f"att_context_size={list(size)}"
        if self.style == "chunked_limited_with_rc":
            if len(size) != 3 or min(size) < -1:
                raise ValueError(f"{given}: att_context_style={self.style!r} needs [left, chunk, right]")
            if size[1] == 0:
                raise ValueError(f"{given}: the chunk must be 1 frame or more, or -1 for no chunks")
            self._check_halves(given, "chunk", size[1])
            self._check_halves(given, "right", size[2])
            return
        if len(size) != 2 or min(size) < -1:
            raise ValueError(f"{given}: expected [left, right], with -1 for unlimited")
        if self.style == "chunked_limited":
            self._check_chunks(given, size[0], size[1], several)

    def _check_chunks(self, given: str, left: int, right: int, several: bool) -> None:
        if right < 0:
            if several:
                return
            raise ValueError(
                f"{given}: with att_context_style='chunked_limited' (the default if streaming=True), a chunk has right "
                "+ 1 frames, so right must be 0 or more"
            )
        chunk = right + 1
        if chunk % self.factor or left % chunk and left > 0:
            chunks = _multiples(chunk, self.factor, least=self.factor)
            nearest = [[new * n, new - 1] for new in chunks for n in ([-1] if left < 0 else _around(left, new))]
            better = " or ".join(str([-1, size[1]] if left < 0 else size) for size in nearest)
            halves = "" if self.factor == 1 else f", and the chunk must be a multiple of {self.factor}{self._reason()}"
            raise ValueError(
                f"{given}: a chunk has right + 1 = {chunk} frames; left must be a multiple of the chunk"
                f"{halves}; the nearest sizes are {better}"
            )

    def _check_halves(self, given: str, what: str, frames: int) -> None:
        if frames > 0 and frames % self.factor:
            least = self.factor if what == "chunk" else 0
            better = " or ".join(map(str, _multiples(frames, self.factor, least)))
            raise ValueError(
                f"{given}: {what} {frames} must be a multiple of {self.factor}{self._reason()}; the nearest values "
                f"are {better}"
            )

    def _reason(self) -> str:
        return (
            f", because {self.factor} frames become one in the temporal U-Net "
            "(time_reduce_idx=None turns the temporal U-Net off)"
        )

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
            raise ValueError(f"{given}: expected three lists: left contexts, chunks and right contexts")
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
    """Return ``att_context_style`` and ``conv_context_size`` of an encoder with ``streaming=True``.

    The function replaces None by a value for streams. All other values do not change.

    Raises:
        ValueError: ``causal_downsampling`` is True. With causal downsampling, the number of output frames would depend
            on the ends of the chunks.
    """
    if causal_downsampling:
        raise ValueError("streaming=True has its own causal subsampling: leave out causal_downsampling")
    if conv_context_size is None and conv_context_style == "regular":
        conv_context_size = "causal"
    return att_context_style or "chunked_limited", conv_context_size


def _multiples(frames: int, of: int, least: int) -> list[int]:
    """Return the nearest multiples of ``of`` below and above ``frames`` that are at least ``least``."""
    return sorted({n for n in (frames // of * of, -(-frames // of) * of) if n >= least})


def _around(left: int, chunk: int) -> list[int]:
    """Return the number of chunks that have ``left`` frames in total.

    If no number of chunks fits, return the nearest smaller number and the nearest larger number.
    """
    return sorted({left // chunk, -(-left // chunk)})
