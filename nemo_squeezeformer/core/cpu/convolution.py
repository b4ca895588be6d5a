"""The fast implementation of the convolution module for training on a CPU.

The forward pass stores the inputs of Swish. The backward pass computes the outputs of Swish again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ..convolution import ConvolutionModule
from ..dispatch import implements
from ..frames.masks import Frames
from ..operations import normalized, pointwise
from .depthwise import by_frames, gradient_of_weight
from .precision import low_precision
from .products import product
from .second_derivatives import gradients, is_differentiated_again


@implements(
    ConvolutionModule.forward,
    device="cpu",
    gradients=True,
    plain=lambda self, *args, **named: (self.depthwise_conv, self.pointwise_conv2),
    when=lambda self, x, frames, state=None: type(self) is ConvolutionModule and self.activation is silu and not state,
)
def train_convolution(self: ConvolutionModule, x: Tensor, frames: Frames, state: None = None) -> Tensor:
    """Apply the convolution module: (B, T, D) -> (B, T, D)."""
    x = pointwise(self.pointwise_conv1, x)
    x = swish_depthwise(self.depthwise_conv, x, frames.padding, self.left, self.right)
    return swish_pointwise(self.pointwise_conv2, normalized(self.batch_norm, x))


def swish_depthwise(conv: nn.Conv1d, x: Tensor, padding: Tensor, left: int, right: int) -> Tensor:
    """Apply Swish, then the depthwise convolution ``conv``: (B, T, C) -> (B, T, C).

    Args:
        conv: Depthwise convolution with kernel size ``left`` + 1 + ``right``.
        x: Inputs of Swish (B, T, C).
        padding: True at padding (B, T). The convolution sees zeros in place of padding.
        left: Number of zeros before the frames.
        right: Number of zeros after the frames.
    """
    x, weight, bias = low_precision(x, conv.weight, conv.bias)
    return _swish_depthwise(x, weight, bias, (~padding).sum(1).tolist(), left, right)


def swish_pointwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply Swish, then ``conv``, a convolution with kernel size 1: (B, T, C) -> (B, T, D)."""
    return _swish_linear(*low_precision(x, conv.weight[..., 0], conv.bias))


class _SwishDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, lengths: list[int], left: int, right: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.lengths, ctx.margins = lengths, (left, right)
        with torch.autocast(x.device.type, enabled=False):
            return by_frames(_without_padding(silu(x), lengths), weight, bias, left, right)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight, bias), (left, right) = ctx.saved_tensors, ctx.margins
        if is_differentiated_again():
            equation = partial(_depthwise_equation, lengths=ctx.lengths, left=left, right=right)
            return gradients(equation, ctx, (x, weight, bias), grad)
        kernel = weight.size(2)
        of_x = of_weight = of_bias = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = by_frames(grad, weight.flip(2), None, kernel - 1 - left, kernel - 1 - right)
                of_x = torch.ops.aten.silu_backward(_without_padding(of_x, ctx.lengths), x)
            if ctx.needs_input_grad[1]:
                of_weight = gradient_of_weight(_without_padding(silu(x), ctx.lengths), grad, kernel, left)
            if ctx.needs_input_grad[2]:
                of_bias = grad.sum((0, 1))
        return of_x, of_weight, of_bias, None, None, None


_swish_depthwise: Callable[..., Tensor] = _SwishDepthwise.apply


def _depthwise_equation(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: list[int], left: int, right: int
) -> Tensor:
    padding = torch.arange(x.size(1), device=x.device) >= torch.tensor(lengths, device=x.device)[:, None]
    return by_frames(silu(x).masked_fill(padding[..., None], 0.0), weight, bias, left, right)


class _SwishLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            return product(silu(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if is_differentiated_again():
            return gradients(_linear_equation, ctx, (x, weight, bias), grad)
        of_x = of_weight = of_bias = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = torch.ops.aten.silu_backward(product(grad, weight.t()), x)
            if ctx.needs_input_grad[1]:
                of_weight = grad.flatten(0, -2).t() @ silu(x).flatten(0, -2)
            if ctx.needs_input_grad[2]:
                of_bias = grad.flatten(0, -2).sum(0)
        return of_x, of_weight, of_bias


_swish_linear: Callable[..., Tensor] = _SwishLinear.apply


def _linear_equation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(silu(x), weight, bias)


def _without_padding(x: Tensor, lengths: list[int]) -> Tensor:
    """Set the frames of ``x`` (B, T, C) after ``lengths`` to zero in place, and return ``x``."""
    for utterance, length in zip(x, lengths):
        utterance[length:] = 0.0
    return x
