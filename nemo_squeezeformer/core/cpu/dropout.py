"""Dropout that on a CPU keeps one byte an element for the way back, and draws as fast as it multiplies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..dispatch import implements
from ..dropout import Dropout
from .random_masks import kept, kept_rate


@implements(Dropout.forward, device="cpu", gradients=True, when=lambda self, x: 0.0 < self.rate < 1.0)
def train_dropout(self: Dropout, x: Tensor) -> Tensor:
    """(...) -> (...)"""
    return _dropout(x, self.rate)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        mask = kept(x, rate)
        ctx.save_for_backward(mask)
        ctx.rate = rate
        return thinned(x, mask, rate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return thinned(grad, mask, ctx.rate), None


_dropout: Callable[..., Tensor] = _Dropout.apply


def thinned(x: Tensor, mask: Tensor, rate: float) -> Tensor:
    """``x`` where ``mask`` is 1, scaled up for what is left out."""
    return x * mask.to(x.dtype).div_(kept_rate(rate))
