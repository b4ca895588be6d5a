"""The convolution module: pointwise expand, depthwise over time, pointwise project (paper, section 3.2.1)."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from .feed_forward import init_uniform
from .frames import Frames
from .streaming import LayerState, with_left_context


class ConvolutionModule(nn.Module):
    """Conformer's convolution module with Swish in the place of GLU, and so at twice the inner width."""

    def __init__(self, d_model: int, kernel_size: int, norm: str = "batch_norm", causal: bool = False):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size={kernel_size} must be odd, so that a frame is the middle of its window")
        inner = 2 * d_model
        self.left = kernel_size - 1 if causal else kernel_size // 2
        self.right = kernel_size - 1 - self.left
        self.pointwise_conv1 = nn.Conv1d(d_model, inner, kernel_size=1)
        self.depthwise_conv = nn.Conv1d(inner, inner, kernel_size, groups=inner)
        self.batch_norm = conv_norm(norm, inner)  # NeMo's name, whichever norm it is
        self.pointwise_conv2 = nn.Conv1d(inner, d_model, kernel_size=1)
        init_uniform(self.pointwise_conv1, fan_in=d_model)
        init_uniform(self.depthwise_conv, fan_in=kernel_size)
        init_uniform(self.pointwise_conv2, fan_in=d_model)

    def forward(self, x: Tensor, frames: Frames, state: LayerState | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        x = silu(self.pointwise_conv1(x.transpose(1, 2)))  # (B, 2D, T)
        x = x.masked_fill(frames.padding[:, None], 0.0)  # or padding leaks into valid frames
        if state is None:
            x = pad(x, (self.left, self.right))
        else:
            x, state.convolution = with_left_context(x, state.convolution, dim=-1, keep=self.left)
        x = silu(self.batch_norm(self.depthwise_conv(x)))
        return self.pointwise_conv2(x).transpose(1, 2)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class InstanceNorm(nn.Module):
    """Zero mean and unit variance of each channel over the T frames at hand, padding too; a single frame becomes 0."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5)


class FusedBatchNorm(nn.Module):
    """What a BatchNorm is in inference, as a trainable affine map: for fine-tuning with its statistics frozen."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None] + self.bias[:, None]


def conv_norm(name: str, channels: int) -> nn.Module:
    """The norm called ``name`` over (B, ``channels``, T)."""
    group = re.fullmatch(r"group_norm(\d+)", name)
    if group and int(group[1]) and channels % int(group[1]) == 0:
        return nn.GroupNorm(int(group[1]), channels)
    if name in NORMS:
        return NORMS[name](channels)
    raise ValueError(
        f"conv_norm_type={name!r}: expected one of {', '.join(NORMS)}, or group_normN where N divides {channels}"
    )


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch_norm": nn.BatchNorm1d,
    "layer_norm": ChannelLayerNorm,
    "instance_norm": lambda channels: InstanceNorm(),
    "fused_batch_norm": FusedBatchNorm,
}
