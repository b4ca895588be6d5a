"""The replacement of an encoder's modules by faster modules with equal results in inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..attention.positions import RelativePositions
from ..cpu.linear import FastLinear
from ..cpu.projections import FastPointwise, TurnedProjection
from ..dispatch import implements, is_plain
from ..encoder import SqueezeformerEncoder
from ..feed_forward import ScaleBias
from ..subsampling import StridingSubsampling
from .folding import after_scale, before_norm, is_affine
from .fused_projections import fuse_projections
from .guard import guard, is_optimized
from .head_blocks import by_heads
from .kept_positions import EncodingTable, KeptLinear

ENTRANCES = {  # for each module, the layers whose input is the output of the scale before the module
    "self_attn": ("linear_q", "linear_k", "linear_v", "global_q", "global_k", "global_v"),
    "feed_forward1": ("linear1",),
    "conv": ("pointwise_conv1",),
    "feed_forward2": ("linear1",),
}


@implements(SqueezeformerEncoder.optimize_for_inference, graphs=True)
def optimize(encoder: SqueezeformerEncoder) -> SqueezeformerEncoder:
    """Optimize ``encoder`` in place and return ``encoder``. See ``SqueezeformerEncoder.optimize_for_inference``."""
    if not is_optimized(encoder):
        with torch.inference_mode(False), torch.no_grad():
            _exchange_modules(encoder)
        encoder.eval().requires_grad_(False)
        guard(encoder)
    return encoder


def _exchange_modules(encoder: SqueezeformerEncoder) -> None:
    table = EncodingTable()
    for positions in (encoder.pos_enc, encoder.time_reduce_pos_enc):
        if isinstance(positions, RelativePositions):
            positions.encodings = table
    for layer in encoder.layers:
        for module, entrances in ENTRANCES.items():
            _fold_scale(layer, f"{module}_scale", getattr(layer, module), entrances)
        _fold_norm(layer.conv)
        fuse_projections(layer.self_attn)
        layer.self_attn.kernel = by_heads(layer.self_attn.kernel)
        if is_plain(getattr(layer.self_attn, "linear_pos", None)):
            layer.self_attn.linear_pos = KeptLinear(*weights(layer.self_attn.linear_pos), table)
    subsampling: Any = encoder.pre_encode
    if isinstance(encoder.pre_encode, StridingSubsampling) and is_plain(subsampling.out):
        subsampling.out = TurnedProjection(*weights(subsampling.out), subsampling.channels)
    _exchange_products(encoder)


def _fold_scale(layer: Any, scale: str, module: nn.Module, entrances: Sequence[str]) -> None:
    seeing = [getattr(module, name) for name in entrances if hasattr(module, name)]
    found = getattr(layer, scale, None)
    if type(found) is not ScaleBias or not all(map(is_plain, [found, *seeing])):
        return
    for entrance in seeing:
        _set(entrance, *after_scale(found, *weights(entrance)))
    setattr(layer, scale, nn.Identity())


def _fold_norm(conv: Any) -> None:
    if is_affine(conv.batch_norm) and is_plain(conv.depthwise_conv):
        _set(conv.depthwise_conv, *before_norm(*weights(conv.depthwise_conv), conv.batch_norm))
        conv.batch_norm = nn.Identity()


def _exchange_products(module: nn.Module) -> None:
    for name, child in module.named_children():
        if name == "adapter_layer":  # NeMo trains and saves adapters separately
            continue
        if type(child) is nn.Linear and is_plain(child):
            setattr(module, name, FastLinear(*weights(child)))
        elif is_pointwise(child) and is_plain(child):
            weight, bias = weights(child)
            setattr(module, name, FastPointwise(weight.flatten(1), bias))
        else:
            _exchange_products(child)


def is_pointwise(module: nn.Module) -> bool:
    """Return True if ``module`` is a convolution with kernel size 1 and stride 1, which is a single matrix product."""
    kinds = (nn.Conv1d, nn.Conv2d)
    return isinstance(module, kinds) and module.groups == 1 and {*module.kernel_size, *module.stride} == {1}


def weights(module: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight and the bias of a plain layer as tensors without gradients."""
    return module.weight.detach(), None if module.bias is None else module.bias.detach()


def _set(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    module.weight = nn.Parameter(weight, requires_grad=False)
    module.bias = nn.Parameter(bias, requires_grad=False)
