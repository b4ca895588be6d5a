"""Exact attention for training on a GPU that stores no scores, with all utterances of a batch at once.

The backward pass computes the scores of each block of queries again. Only queries, keys, values and positions are
stored, so the memory grows with T instead of T squared. No length is read back from the GPU.
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
from ..cpu.precision import low_precision, without_autocast
from ..cpu.random_masks import kept, kept_rate
from ..cpu.second_derivatives import gradients, is_differentiated_again
from ..dropout import rate_of
from ..frames.masks import Frames
from .query_blocks import diagonals, positions, queries_of_block, reach


class RecomputedBatch(PlainKernel):
    """A kernel for training with the results of ``PlainKernel``.

    The backward pass draws the dropout masks again from a seed. The seed is drawn on the CPU, so that no value is read
    back from a GPU.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        rate = rate_of(dropout)
        if rate == 1.0:  # the blocks divide by the probability that a weight is kept
            return super().__call__(operands, frames, dropout)
        seed = int(torch.randint(2**62, (), device="cpu").item()) if rate else 0
        return _attention(*low_precision(*operands[:5]), frames, rate, seed)


@dataclass(frozen=True)
class Block:
    """The queries ``first`` to ``stop`` - 1 of all utterances, and the keys ``start`` to ``end`` - 1."""

    frames: Frames
    first: int
    stop: int
    start: int
    end: int

    def queries(self, x: Tensor) -> Tensor:
        """Return a view of the queries of the block: (B, H, T, d) -> (B, H, Q, d)."""
        return x[:, :, self.first : self.stop]

    def keys(self, x: Tensor) -> Tensor:
        """Return a view of the keys of the block: (B, H, S, d) -> (B, H, K, d)."""
        return x[:, :, self.start : self.end]

    def positions(self, p: Tensor) -> Tensor:
        """Return a view of the positions of the block: (1, H, S + T - 1, d) -> (1, H, d, Q + K - 1)."""
        return positions(p, self.frames, self.first, self.stop, self.start, self.end)

    def weights(self, content: Tensor, k: Tensor, position: Tensor | None, p: Tensor | None) -> Tensor:
        """Return the attention weights of the block (B, H, Q, K). Each row sums to 1."""
        q, keys = self.queries(content), self.keys(k).transpose(-2, -1)
        scale = 1.0 / math.sqrt(q.size(-1))
        if position is None or p is None:
            scores = (q @ keys).mul_(scale)
        else:
            by_position = diagonals(self.queries(position) @ self.positions(p), keys.size(-1))
            # One operation adds and scales both products in float32, so that the scores are rounded once.
            scores = torch.baddbmm(*(x.flatten(0, 1) for x in (by_position, q, keys)), beta=scale, alpha=scale)
            scores = scores.view(by_position.shape)
        unseen = self.frames.unseen(self.first, self.stop, self.start, self.end)
        if unseen is not None:
            scores = scores.masked_fill_(unseen[:, None], -10000.0)
        return scores.softmax(dim=-1)


def blocks(frames: Frames, q: Tensor, k: Tensor) -> Iterator[Block]:
    """Yield the blocks of the queries ``q`` (B, H, T, d) and the keys ``k`` (B, H, S, d)."""
    b, h, t, _ = q.shape
    s = k.size(2)
    size = queries_of_block(b * h * s, q.device)
    for first in range(0, t, size):
        stop = min(first + size, t)
        yield Block(frames, first, stop, *reach(frames, first, stop, s))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        content: Tensor,
        k: Tensor,
        v: Tensor,
        position: Tensor | None,
        p: Tensor | None,
        frames: Frames,
        rate: float,
        seed: int,
    ) -> Tensor:
        ctx.save_for_backward(content, k, v, position, p)
        ctx.frames, ctx.rate, ctx.seed = frames, rate, seed
        with without_autocast(content.device):
            return attended(content, k, v, position, p, frames, rate, seed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        content, k, v, position, p = ctx.saved_tensors
        frames, rate = ctx.frames, ctx.rate
        if is_differentiated_again():
            equation = partial(attended, frames=frames, rate=rate, seed=ctx.seed)
            return gradients(equation, ctx, (content, k, v, position, p), grad)
        generator = _generator(content, ctx.seed, rate)
        grad = without_padding(grad, frames) / kept_rate(rate)
        # The sums over the blocks are in float32 or a wider dtype.
        exact = torch.promote_types(content.dtype, torch.float32)
        grad_content, grad_position = (
            torch.empty_like(content),
            None if position is None else torch.empty_like(position),
        )
        grad_k, grad_v = (torch.zeros_like(x, dtype=exact) for x in (k, v))
        grad_p = None if p is None else torch.zeros_like(p, dtype=exact)
        scale = 1.0 / math.sqrt(content.size(-1))
        values = v if rate else centered(v)
        with without_autocast(content.device):
            for block in blocks(frames, content, k):
                weights, g = block.weights(content, k, position, p), block.queries(grad)
                grad_weights, used = g @ block.keys(values).transpose(-2, -1), weights
                if rate:
                    mask = kept(weights, rate, generator)
                    used = weights * mask
                    grad_weights.mul_(mask)
                block.keys(grad_v).add_(used.transpose(-2, -1) @ g)
                scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                block.queries(grad_content).copy_(scores @ block.keys(k)).mul_(scale)
                block.keys(grad_k).add_(scores.transpose(-2, -1) @ block.queries(content), alpha=scale)
                if position is not None and grad_position is not None and p is not None and grad_p is not None:
                    b, h, queries, keys = scores.shape
                    x = scores.new_zeros(b, h, queries, queries + keys - 1)
                    diagonals(x, keys).copy_(scores)
                    block.queries(grad_position).copy_(x @ block.positions(p).transpose(-2, -1)).mul_(scale)
                    of_utterances = x.transpose(-2, -1) @ block.queries(position)  # (B, H, Q + K - 1, d)
                    summed = of_utterances.sum(dim=0, keepdim=True, dtype=exact)
                    block.positions(grad_p).transpose(-2, -1).add_(summed, alpha=scale)
        low = content.dtype
        grads = (
            grad_content,
            grad_k.to(low),
            grad_v.to(low),
            grad_position,
            None if grad_p is None else grad_p.to(low),
        )
        return (*grads, None, None, None)


_attention: Callable[..., Tensor] = _Attention.apply


def attended(
    content: Tensor,
    k: Tensor,
    v: Tensor,
    position: Tensor | None,
    p: Tensor | None,
    frames: Frames,
    rate: float,
    seed: int,
) -> Tensor:
    """Return the attended values (B, H, T, d), computed by operations that autograd can differentiate."""
    generator = _generator(content, seed, rate)
    b, h, t, d = content.shape
    found = v.new_empty(b, t, h, d).transpose(1, 2)  # the memory layout that the next projection reads
    for block in blocks(frames, content, k):
        weights = block.weights(content, k, position, p)
        if rate:
            weights = weights * kept(weights, rate, generator)
        found[:, :, block.first : block.stop] = weights @ block.keys(v)
    return without_padding(found, frames) / kept_rate(rate)


def centered(v: Tensor) -> Tensor:
    """Return the values (B, H, S, d) minus their mean over the keys.

    Without dropout, the weights of a query sum to 1. Therefore a constant that is added to all values does not change
    the gradients of the scores. Without the mean, the gradients of the weights are smaller, and low precision rounds
    their differences less. With dropout, the weights do not sum to 1, and this function must not be used.
    """
    exact = torch.promote_types(v.dtype, torch.float32)
    return (v - v.mean(dim=2, keepdim=True, dtype=exact)).to(v.dtype)


def without_padding(x: Tensor, frames: Frames) -> Tensor:
    """Return ``x`` (B, H, T, d) with zeros at queries that are padding."""
    return x.masked_fill(frames.absent[:, None, frames.past :, None], 0.0) if frames.padded else x


def _generator(x: Tensor, seed: int, rate: float) -> torch.Generator | None:
    """Return a generator on the device of ``x``, or None without dropout. The meta device has no random numbers."""
    if not rate or x.device.type == "meta":
        return None
    return torch.Generator(x.device).manual_seed(seed)
