"""Backward passes that can be differentiated again, for the functions of this package with their own backward pass.

The fast backward passes compute in place and without autograd, so the gradients have no derivatives. With
``create_graph=True``, a function computes its equation again and lets autograd differentiate the equation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import in_transform


def is_differentiated_again() -> bool:
    """Return True in a backward pass with ``create_graph=True``, or inside a transform of ``torch.func``."""
    return torch.is_grad_enabled() or in_transform()


def gradients(
    equation: Callable[..., Tensor], ctx: Any, inputs: Sequence[Tensor | None], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first arguments of a function, and None for the other arguments.

    The gradients are differentiable with respect to ``inputs`` and ``grad``.

    Args:
        equation: Function that computes the output from ``inputs``, in operations that autograd can differentiate.
        ctx: Context of the function.
        inputs: First arguments of the function. An argument None stays None.
        grad: Gradient of the output.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(grad.device.type, enabled=False):
        # An input may depend on another input. Autograd stops at the views, so the gradients are partial derivatives.
        views = [None if x is None else _view(x) for x in inputs]
        wanted = {at: x for at, x in enumerate(views) if x is not None and ctx.needs_input_grad[at]}
        found = torch.autograd.grad(equation(*views), list(wanted.values()), grad, create_graph=create_graph)
    by_input = dict(zip(wanted, found))
    return tuple(by_input.get(at) for at in range(len(ctx.needs_input_grad)))


def _view(x: Tensor) -> Tensor:
    return x.view_as(x) if x.requires_grad else x
