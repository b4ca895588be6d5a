"""Affine maps of inference folded into the linear and convolution layers beside them, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..convolution import FusedBatchNorm
from ..dispatch import is_plain
from ..feed_forward import ScaleBias


def after_scale(scale: ScaleBias, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight (out, in, ...) and bias of a linear layer that does what ``scale`` and it did: W (s x + b) + c."""
    wide = weight.double().flatten(1)
    shift = wide @ scale.bias.double()
    wide = (wide * scale.scale.double()).view_as(weight)
    return wide.to(weight.dtype), (shift if bias is None else bias.double() + shift).to(weight.dtype)


def before_norm(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, ...) and bias of a convolution that does what it and ``norm`` did: g (W x + c) + h."""
    gain, shift = affine(norm)
    wide = weight.double() * gain.view(-1, *(1,) * (weight.dim() - 1))
    return wide.to(weight.dtype), (shift if bias is None else gain * bias.double() + shift).to(weight.dtype)


def is_affine(norm: nn.Module) -> bool:
    """Whether ``norm`` is an affine map of each channel by itself in inference."""
    if not is_plain(norm):
        return False
    return isinstance(norm, FusedBatchNorm) or (isinstance(norm, _BatchNorm) and norm.running_mean is not None)


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    """The gains and shifts of the channels, (C,) each, in float64."""
    if isinstance(norm, FusedBatchNorm):
        return norm.weight.double(), norm.bias.double()
    gain = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    return gain, norm.bias.double() - gain * norm.running_mean.double()
