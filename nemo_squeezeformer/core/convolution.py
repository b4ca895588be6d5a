"""The convolution module: pointwise expand, depthwise over time, pointwise project (paper, section 3.2.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, pad, silu

from .dispatch import dispatched, plain_module
from .feed_forward import init_uniform
from .frames.context import ContextSettings
from .frames.masks import Frames, overlapping
from .frames.state import LayerState, with_left_context
from .operations import depthwise, normalized, pointwise


class ConvolutionModule(nn.Module):
    """Conformer's convolution module with Swish in the place of GLU, and so at twice the inner width.

    ``gated``: Conformer's own, with GLU.
    """

    chunked = False  # whether it sees nothing after the chunk of attention

    def __init__(
        self,
        d_model: int,
        kernel_size: int,
        norm: str = "batch_norm",
        context: str | Sequence[int] | None = None,
        use_bias: bool = True,
        gated: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ):
        super().__init__()
        inner = d_model if gated else 2 * d_model
        self.activation: Callable[[Tensor], Tensor] = partial(glu, dim=-1) if gated else silu
        self.left, self.right = conv_context(kernel_size, context)
        self.pointwise_conv1 = nn.Conv1d(d_model, 2 * d_model, kernel_size=1, bias=use_bias)
        self.depthwise_conv = nn.Conv1d(inner, inner, kernel_size, groups=inner, bias=use_bias)
        self.batch_norm = conv_norm(norm, inner, eps, momentum)  # NeMo's name, whichever norm it is
        self.pointwise_conv2 = nn.Conv1d(inner, d_model, kernel_size=1, bias=use_bias)
        init_uniform(self.pointwise_conv1, fan_in=d_model)
        init_uniform(self.depthwise_conv, fan_in=kernel_size)
        init_uniform(self.pointwise_conv2, fan_in=d_model)

    @dispatched
    def forward(self, x: Tensor, frames: Frames, state: LayerState | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        x = self.activation(pointwise(self.pointwise_conv1, x))  # (B, T, 2D), or where it is gated (B, T, D)
        if frames.padded:
            x = x.masked_fill(frames.padding[..., None], 0.0)  # or padding leaks into valid frames
        left = self.left
        if state is not None:
            past, left = state.convolution.transpose(1, 2), 0
            x, past = with_left_context(x, past, 1, frames.advance)
            state.convolution = past.transpose(1, 2)
        x = self.depthwise(x, left, frames)
        x = silu(normalized(self.batch_norm, x))
        return pointwise(self.pointwise_conv2, x)

    def depthwise(self, x: Tensor, left: int, frames: Frames) -> Tensor:
        """(B, T, 2D), or T after what precedes it -> (B, T, 2D); ``left`` zeros precede it."""
        return depthwise(self.depthwise_conv, x, left, self.right)


class ChunkedConvolutionModule(ConvolutionModule):
    """Dynamic chunk convolution (Li et al. 2023, arXiv 2304.09325): zeros in the place of what follows the chunk.

    The chunks are those of attention; where it has none, this is the plain convolution.
    """

    chunked = True

    def depthwise(self, x: Tensor, left: int, frames: Frames) -> Tensor:
        """(B, T, 2D), or T after what precedes it -> (B, T, 2D); ``left`` zeros precede it."""
        chunk, b, t, d = frames.context.chunk, x.size(0), frames.padding.size(1), x.size(2)
        if not chunk:
            return super().depthwise(x, left, frames)
        x = overlapping(pad(x, (0, 0, left, chunk - 1)), 1, self.left + chunk, chunk)  # (B, N, left + chunk, 2D)
        x = x.reshape(-1, self.left + chunk, d)  # flatten(0, 1) in ONNX: a shape of size 0
        x = depthwise(self.depthwise_conv, x, 0, self.right)  # (B * N, chunk, 2D)
        return x.reshape(b, -1, d)[:, :t]


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class InstanceNorm(nn.Module):
    """Zero mean and unit variance of each channel over the T frames at hand, padding too; a single frame becomes 0."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5)


@plain_module
class FusedBatchNorm(nn.Module):
    """What a BatchNorm is in inference, as a trainable affine map: for fine-tuning with its statistics frozen."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None] + self.bias[:, None]


def conv_context(kernel_size: int, context: str | Sequence[int] | None) -> tuple[int, int]:
    """How many frames before and after its own a frame sees, for ``conv_context_size``.

    Raises:
        ValueError: for an even kernel, or frames that do not add up to it.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"conv_kernel_size={kernel_size} must be odd, so that a frame is the middle of its window")
    if context is None:
        return kernel_size // 2, kernel_size // 2
    if context == "causal":
        return kernel_size - 1, 0
    if isinstance(context, str) or len(context) != 2 or min(context) < 0 or sum(context) + 1 != kernel_size:
        raise ValueError(
            f"conv_context_size={context if isinstance(context, str) else list(context)}: expected None, 'causal', or "
            f"frames to the left and right that with the frame itself make conv_kernel_size={kernel_size}"
        )
    return context[0], context[1]


def build_convolution(style: str, contexts: ContextSettings) -> type[ConvolutionModule]:
    """The convolution module of ``conv_context_style``.

    Raises:
        ValueError: for an unknown style, or for ``dcc`` where attention has no chunks.
    """
    if style not in ("regular", "dcc"):
        raise ValueError(f"conv_context_style={style!r}: expected 'regular' or 'dcc'")
    if style == "regular":
        return ConvolutionModule
    if contexts.style == "regular":
        raise ValueError(
            "conv_context_style='dcc' goes by the chunks of attention: set att_context_style='chunked_limited' or "
            "'chunked_limited_with_rc'"
        )
    return ChunkedConvolutionModule


def conv_norm(name: str, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """The norm called ``name`` over (B, ``channels``, T); ``eps`` of batch and layer norms, ``momentum`` of the former.

    Raises:
        ValueError: for an unknown name.
    """
    group = re.fullmatch(r"group_norm(\d+)", name)
    if group and int(group[1]) and channels % int(group[1]) == 0:
        return nn.GroupNorm(int(group[1]), channels)
    norms: dict[str, Callable[[], nn.Module]] = {
        "batch_norm": lambda: nn.BatchNorm1d(channels, eps, momentum),
        "layer_norm": lambda: ChannelLayerNorm(channels, eps),
        "instance_norm": InstanceNorm,
        "fused_batch_norm": lambda: FusedBatchNorm(channels),
    }
    if name in norms:
        return norms[name]()
    raise ValueError(
        f"conv_norm_type={name!r}: expected one of {', '.join(norms)}, or group_normN where N divides {channels}"
    )
