"""The folding of affine maps into the neighboring linear and convolution layers for inference, computed in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..convolution import FusedBatchNorm
from ..dispatch import is_plain
from ..feed_forward import ScaleBias


def after_scale(scale: ScaleBias, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the weight (out, in, ...) and the bias (out,) of a linear layer with ``scale`` folded into it.

    The new layer computes W (s x + b) + c, like ``scale`` followed by the layer with ``weight`` and ``bias``.
    """
    wide = weight.double().flatten(1)
    shift = wide @ scale.bias.double()
    wide = (wide * scale.scale.double()).view_as(weight)
    return wide.to(weight.dtype), (shift if bias is None else bias.double() + shift).to(weight.dtype)


def before_norm(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weight (out, ...) and the bias (out,) of a convolution with ``norm`` folded into it.

    The new layer computes g (W x + c) + h, like the convolution with ``weight`` and ``bias`` followed by ``norm``.
    """
    gain, shift = affine(norm)
    wide = weight.double() * gain.view(-1, *(1,) * (weight.dim() - 1))
    return wide.to(weight.dtype), (shift if bias is None else gain * bias.double() + shift).to(weight.dtype)


def is_affine(norm: nn.Module) -> bool:
    """Return True if ``norm`` in evaluation is an affine map of each channel that does not depend on other channels."""
    if not is_plain(norm):
        return False
    return isinstance(norm, FusedBatchNorm) or (isinstance(norm, _BatchNorm) and norm.running_mean is not None)


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the affine map of ``norm`` in evaluation: the gain (C,) and the shift (C,) of the channels, in float64."""
    if isinstance(norm, FusedBatchNorm):
        return norm.weight.double(), norm.bias.double()
    gain = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    return gain, norm.bias.double() - gain * norm.running_mean.double()
