"""The fast implementation of the feed-forward module for training on a CPU.

The forward pass stores the input of Swish and the dropout mask. The backward pass computes the other activations again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ..dispatch import implements
from ..dropout import rate_of
from ..feed_forward import FeedForward
from .dropout import thinned
from .precision import low_precision
from .products import product
from .random_masks import kept, kept_rate
from .second_derivatives import gradients, is_differentiated_again


@implements(
    FeedForward.forward,
    device="cpu",
    gradients=True,
    plain=lambda self, x: (self.linear1, self.linear2, self.dropout),
    when=lambda self, x: kept_rate(rate_of(self.dropout)) > 0.0,
)
def train_feed_forward(self: FeedForward, x: Tensor) -> Tensor:
    """Apply the feed-forward module: (B, T, D) -> (B, T, D)."""
    return lean_feed_forward(x, self.linear1, self.linear2, rate_of(self.dropout))


def lean_feed_forward(x: Tensor, expand: nn.Linear, project: nn.Linear, rate: float) -> Tensor:
    """Return ``project(dropout(silu(expand(x))))``: (B, T, D) -> (B, T, D).

    The function stores ``x``, ``expand(x)`` and the dropout mask for the backward pass. ``rate`` is the dropout rate.
    """
    weights = (expand.weight, expand.bias, project.weight, project.bias)
    return _feed_forward(*low_precision(x, *weights), rate)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, expand: Tensor, bias1: Tensor | None, project: Tensor, bias2: Tensor | None, rate: float
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            inner = product(x, expand, bias1)
            mask = kept(inner, rate) if rate else None
            ctx.save_for_backward(x, expand, bias1, project, bias2, inner, mask)
            ctx.rate = rate
            # The weights are scaled instead of the activations, because the model has fewer weights than activations.
            return product(_activated(inner, mask), project * (1.0 / kept_rate(rate)), bias2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, expand, bias1, project, bias2, inner, mask = ctx.saved_tensors
        if is_differentiated_again():
            equation = partial(_equation, mask=mask, rate=ctx.rate)
            return gradients(equation, ctx, (x, expand, bias1, project, bias2), grad)
        needs, scale, rows = ctx.needs_input_grad, 1.0 / kept_rate(ctx.rate), grad.flatten(0, -2)
        of_x = of_expand = of_bias1 = of_project = of_bias2 = None
        with torch.autocast(x.device.type, enabled=False):
            if needs[3]:
                of_project = (rows.t() @ _activated(inner, mask).flatten(0, -2)).mul_(scale)
            if needs[4]:
                of_bias2 = rows.sum(0)
            if any(needs[:3]):
                of_inner = product(grad, (project * scale).t())
                if mask is not None:
                    of_inner.mul_(mask.to(grad.dtype))
                of_inner = torch.ops.aten.silu_backward(of_inner, inner)
                of_rows = of_inner.flatten(0, -2)
                of_x = product(of_inner, expand.t()) if needs[0] else None
                of_expand = of_rows.t() @ x.flatten(0, -2) if needs[1] else None
                of_bias1 = of_rows.sum(0) if needs[2] else None
        return of_x, of_expand, of_bias1, of_project, of_bias2, None


_feed_forward: Callable[..., Tensor] = _FeedForward.apply


def _equation(
    x: Tensor,
    expand: Tensor,
    bias1: Tensor | None,
    project: Tensor,
    bias2: Tensor | None,
    mask: Tensor | None,
    rate: float,
) -> Tensor:
    activated = silu(linear(x, expand, bias1))
    return linear(activated if mask is None else thinned(activated, mask, rate), project, bias2)


def _activated(inner: Tensor, mask: Tensor | None) -> Tensor:
    activated = silu(inner)
    return activated if mask is None else activated.mul_(mask.to(inner.dtype))
