"""Streaming state: everything the encoder remembers between two chunks of one stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class LayerState:
    """What one layer remembers, at that layer's frame rate."""

    attention: Tensor  # (B, <= left context, D)  attention inputs still within reach
    convolution: Tensor  # (B, 2D, K - 1)  inputs of the depthwise convolution


@dataclass
class ReductionState:
    """What one time reduction remembers, at the frame rate that it halves."""

    reduction: Tensor  # (B, D, 3)


@dataclass
class EncoderState:
    """Moves on in place as chunks go through; ``SqueezeformerEncoder.init_state`` makes a fresh one."""

    subsampling: list[Tensor]  # (B, C, left, F) for each strided convolution
    reductions: list[ReductionState]  # one for each branch of the temporal U-Net, in the order of its first layer
    layers: list[LayerState]
    cached: int = 0  # encoder frames, at the full rate, that attention still reaches


def with_left_context(x: Tensor, past: Tensor, dim: int, keep: int) -> tuple[Tensor, Tensor]:
    """Prepend the remembered frames to ``x`` along ``dim``, and say which ``keep`` frames to remember next."""
    joined = torch.cat([past, x], dim=dim)
    start = max(joined.size(dim) - keep, 0)
    return joined, joined.narrow(dim, start, joined.size(dim) - start)
