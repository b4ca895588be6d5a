"""Exact attention for training that stores no scores. The backward pass computes the scores of each block again.

Only queries, keys, values and positions are stored, so the memory grows with T instead of T squared. The utterances of
a batch are computed one after another, each utterance without padding. Therefore padding takes no time and needs no
mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands, PlainKernel
from ..cpu.dropout import thinned
from ..cpu.precision import low_precision, without_autocast
from ..cpu.random_masks import kept, kept_rate
from ..cpu.second_derivatives import gradients, is_differentiated_again
from ..dropout import rate_of
from ..frames.context import Context
from ..frames.masks import Frames
from .query_blocks import diagonals

BLOCK = 128  # maximum number of queries in a block, so that the scores of the block fit in the cache of a CPU core


class RecomputedAttention(PlainKernel):
    """A kernel for training with the results of ``PlainKernel``.

    The backward pass draws the dropout masks again from a seed.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        rate = rate_of(dropout)
        # The blocks do not support a stream, which has more keys than queries, or a dropout rate of 1.
        if frames.past or rate == 1.0:
            return super().__call__(operands, frames, dropout)
        blocks = Blocks(frames.lengths.tolist(), operands.content.size(2), frames.context)
        return _attention(*low_precision(*operands[:5]), blocks, rate)


@dataclass(frozen=True)
class Block:
    """A block of an utterance: the queries ``first`` to ``stop`` - 1 and the keys ``start`` to ``end`` - 1."""

    utterance: int
    first: int
    stop: int
    start: int
    end: int
    t: int  # number of frames of the batch, with padding
    context: Context

    def queries(self, x: Tensor) -> Tensor:
        """Return a view of the queries of the block: (B, H, T, d) -> (H, Q, d)."""
        return x[self.utterance, :, self.first : self.stop]

    def keys(self, x: Tensor) -> Tensor:
        """Return a view of the keys of the block: (B, H, T, d) -> (H, K, d)."""
        return x[self.utterance, :, self.start : self.end]

    def positions(self, p: Tensor) -> Tensor:
        """Return a view of the positions of the block: (1, H, 2T - 1, d) -> (H, Q + K - 1, d).

        The first position is the position of the last query and the first key. The last position is the position of the
        first query and the last key.
        """
        last = self.t - self.stop + self.start
        return p[0, :, last : last + self.stop - self.first + self.end - self.start - 1]

    def weights(self, content: Tensor, k: Tensor, position: Tensor | None, p: Tensor | None) -> Tensor:
        """Return the attention weights of the block (H, Q, K). Each row sums to 1."""
        q, keys = self.queries(content), self.keys(k).transpose(1, 2)
        scale = 1.0 / math.sqrt(q.size(-1))
        if position is None or p is None:
            scores = torch.bmm(q, keys) * scale
        else:
            x = torch.bmm(self.queries(position), self.positions(p).transpose(1, 2))
            scores = torch.baddbmm(diagonals(x[None], keys.size(-1))[0], q, keys, beta=scale, alpha=scale)
        query = torch.arange(self.first, self.stop, device=q.device)
        within = self.context.reach(query, torch.arange(self.start, self.end, device=q.device))
        if within is not None:
            scores = scores.masked_fill_(~within, -10000.0)
        return scores.softmax(dim=-1)


@dataclass(frozen=True)
class Blocks:
    """All blocks of a batch with ``t`` frames. The blocks contain no padding."""

    lengths: list[int]
    t: int
    context: Context

    def __iter__(self) -> Iterator[Block]:
        for utterance, length in enumerate(self.lengths):
            length = min(length, self.t)
            size = math.ceil(length / math.ceil(length / BLOCK)) if length else BLOCK  # blocks of nearly equal size
            for first in range(0, length, size):
                stop = min(first + size, length)
                start, end = self.context.keys(first, stop)
                yield Block(utterance, first, stop, max(start, 0), min(end, length), self.t, self.context)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        content: Tensor,
        k: Tensor,
        v: Tensor,
        position: Tensor | None,
        p: Tensor | None,
        blocks: Blocks,
        rate: float,
    ) -> Tensor:
        ctx.save_for_backward(content, k, v, position, p)
        ctx.blocks, ctx.rate, ctx.seed = blocks, rate, _seed() if rate else 0
        generator = _generator(content, ctx.seed) if rate else None
        attended = _zeros(content, content.dtype)
        with without_autocast(content.device):
            for block in blocks:
                weights = block.weights(content, k, position, p)
                if generator is not None:
                    weights.mul_(kept(weights, rate, generator)).div_(kept_rate(rate))
                block.queries(attended).copy_(torch.bmm(weights, block.keys(v)))
        return attended

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        content, k, v, position, p = ctx.saved_tensors
        if is_differentiated_again():
            equation = partial(attended_in_blocks, blocks=ctx.blocks, rate=ctx.rate, seed=ctx.seed)
            return gradients(equation, ctx, (content, k, v, position, p), grad)
        rate, generator = ctx.rate, _generator(content, ctx.seed) if ctx.rate else None
        # The sums over the blocks are in float32 or a wider dtype.
        exact = torch.promote_types(content.dtype, torch.float32)
        grad_content, grad_k, grad_v = (_zeros(x, exact) for x in (content, k, v))
        grad_position = None if position is None else _zeros(position, exact)
        grad_p = None if p is None else torch.zeros_like(p, dtype=exact)
        with without_autocast(content.device):
            for block in ctx.blocks:
                weights, g = block.weights(content, k, position, p), block.queries(grad)
                grad_weights = torch.bmm(g, block.keys(v).transpose(1, 2))
                if generator is None:
                    block.keys(grad_v).add_(torch.bmm(weights.transpose(1, 2), g))
                else:
                    mask = kept(weights, rate, generator)
                    used = (weights * mask).div_(kept_rate(rate))
                    block.keys(grad_v).add_(torch.bmm(used.transpose(1, 2), g))
                    grad_weights.mul_(mask).div_(kept_rate(rate))
                scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                block.queries(grad_content).add_(torch.bmm(scores, block.keys(k)))
                block.keys(grad_k).add_(torch.bmm(scores.transpose(1, 2), block.queries(content)))
                if grad_position is not None and grad_p is not None:
                    heads, queries, keys = scores.shape
                    x = scores.new_zeros(heads, queries, queries + keys - 1)
                    diagonals(x[None], keys)[0].copy_(scores)
                    block.queries(grad_position).add_(torch.bmm(x, block.positions(p)))
                    block.positions(grad_p).add_(torch.bmm(x.transpose(1, 2), block.queries(position)))
        scale = 1.0 / math.sqrt(content.size(-1))
        for total in (grad_content, grad_k, grad_position, grad_p):
            if total is not None:
                total.mul_(scale)
        grads = (grad_content, grad_k, grad_v, grad_position, grad_p)
        return (*(None if total is None else total.to(content.dtype) for total in grads), None, None)


_attention: Callable[..., Tensor] = _Attention.apply


def attended_in_blocks(
    content: Tensor,
    k: Tensor,
    v: Tensor,
    position: Tensor | None,
    p: Tensor | None,
    blocks: Blocks,
    rate: float,
    seed: int,
) -> Tensor:
    """Return the output of ``_Attention`` by operations that autograd can differentiate."""
    generator = _generator(content, seed) if rate else None
    attended = _zeros(content, content.dtype)
    for block in blocks:
        weights = block.weights(content, k, position, p)
        if generator is not None:
            weights = thinned(weights, kept(weights, rate, generator), rate)
        block.queries(attended).copy_(torch.bmm(weights, block.keys(v)))
    return attended


def _zeros(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return zeros with the shape of ``x`` (B, H, T, d), in the memory layout (B, T, H, d) of the projections."""
    b, h, t, d = x.shape
    return x.new_zeros(b, t, h, d, dtype=dtype).transpose(1, 2)


def _seed() -> int:
    return int(torch.randint(2**62, (), device="cpu").item())


def _generator(x: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(x.device).manual_seed(seed)
