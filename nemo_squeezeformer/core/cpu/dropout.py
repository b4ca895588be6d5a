"""The fast implementation of dropout for training on a CPU.

The forward pass stores one byte per element. Drawing the mask is as fast as multiplying with the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..dispatch import implements
from ..dropout import Dropout, rate_of
from .random_masks import kept, kept_rate


@implements(Dropout.forward, device="cpu", gradients=True, when=lambda self, x: 0.0 < kept_rate(rate_of(self)) < 1.0)
def train_dropout(self: Dropout, x: Tensor) -> Tensor:
    """Apply dropout to a tensor of any shape."""
    return _dropout(x, rate_of(self))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        mask = kept(x, rate)
        ctx.save_for_backward(mask)
        ctx.rate = rate
        return thinned(x, mask, rate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return thinned(grad, mask, ctx.rate), None


_dropout: Callable[..., Tensor] = _Dropout.apply


def thinned(x: Tensor, mask: Tensor, rate: float) -> Tensor:
    """Return ``x`` with zeros where ``mask`` is 0, divided by the probability that an element is kept."""
    return x * mask.to(x.dtype).div_(kept_rate(rate))
