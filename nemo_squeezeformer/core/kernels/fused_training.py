"""PyTorch's fused attention without position scores, for training on a CPU.

The utterances of a batch are computed one after another, so padding takes no time and needs no mask. No scores are
stored. PyTorch's own fused function has no second derivatives. The function of this module has second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attention.kernel import Operands
from ..cpu.precision import low_precision
from ..cpu.second_derivatives import gradients, is_differentiated_again
from ..dropout import rate_of
from ..frames.context import Context
from ..frames.masks import Frames
from .fused_blocks import empty
from .recomputed_attention import Blocks, RecomputedAttention, attended_in_blocks

FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FusedTraining(RecomputedAttention):
    """A kernel with the results of ``PlainKernel`` for operands without position scores.

    With dropout, the kernel is ``RecomputedAttention``, because PyTorch's fused kernel for a CPU has no dropout. In a
    stream or a limited context, the kernel is also ``RecomputedAttention``, because a mask would have T times S values.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        drops = rate_of(dropout) > 0.0
        if drops or frames.past or frames.context != Context():
            return super().__call__(operands, frames, dropout)
        return _attention(*low_precision(*operands[:3]), frames.lengths.tolist())


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
        attended, sums = empty(q).zero_(), []
        for i, n in enumerate(lengths):
            if n:
                seen, logsumexp = FORWARD(*_utterance(i, n, q, k, v), scale=_scale(q))
                attended[i : i + 1, :, :n] = seen
                sums.append(logsumexp)
        ctx.save_for_backward(q, k, v, attended, *sums)
        ctx.lengths = lengths
        return attended

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, attended, *sums = ctx.saved_tensors
        if is_differentiated_again():
            again = partial(_equation, lengths=ctx.lengths)
            return gradients(again, ctx, (q, k, v), grad)
        grads = [empty(x).zero_() for x in (q, k, v)]
        left = iter(sums)
        for i, n in enumerate(ctx.lengths):
            if n:
                g, *inputs, seen = _utterance(i, n, grad, q, k, v, attended)
                found = BACKWARD(g, *inputs, seen, next(left), 0.0, False, scale=_scale(q))
                for total, part in zip(_utterance(i, n, *grads), found):
                    total.copy_(part)
        return (*grads, None)


_attention: Callable[..., Tensor] = _FusedAttention.apply


def _equation(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Return the output of ``_FusedAttention``, computed by operations that autograd can differentiate."""
    return attended_in_blocks(q, k, v, None, None, Blocks(lengths, q.size(2), Context()), 0.0, 0)


def _utterance(i: int, n: int, *batch: Tensor) -> list[Tensor]:
    """Return the first ``n`` frames of utterance ``i``: (B, H, T, d) -> (1, H, n, d)."""
    return [x[i : i + 1, :, :n] for x in batch]


def _scale(q: Tensor) -> float:
    return 1.0 / math.sqrt(q.size(-1))
