"""The convolution module: pointwise expansion, depthwise convolution, projection (paper, section 3.2.1)."""

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
    """The convolution module. It equals the convolution module of Conformer, except that Swish replaces GLU.

    Therefore the inner width is 2 * ``d_model`` instead of ``d_model``.

    Args:
        d_model: Width D of the input and the output.
        kernel_size: Kernel size of the depthwise convolution.
        norm: Name of the norm, as in ``conv_norm_type``.
        context: Frames that the depthwise convolution sees on each side of a frame, as in ``conv_context_size``.
        use_bias: If True, the convolutions have biases.
        gated: If True, build the convolution module of Conformer, with GLU.
        eps: Epsilon of a batch norm or a layer norm.
        momentum: Momentum of a batch norm.
    """

    chunked = False  # True if no frame sees frames after the end of the attention chunk

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
        self.batch_norm = conv_norm(norm, inner, eps, momentum)  # NeMo's name for every kind of norm
        self.pointwise_conv2 = nn.Conv1d(inner, d_model, kernel_size=1, bias=use_bias)
        init_uniform(self.pointwise_conv1, fan_in=d_model)
        init_uniform(self.depthwise_conv, fan_in=kernel_size)
        init_uniform(self.pointwise_conv2, fan_in=d_model)

    @dispatched
    def forward(self, x: Tensor, frames: Frames, state: LayerState | None = None) -> Tensor:
        """Apply the module: (B, T, D) -> (B, T, D)."""
        x = self.activation(pointwise(self.pointwise_conv1, x))  # (B, T, 2D), or (B, T, D) if gated
        if frames.padded:
            x = x.masked_fill(frames.padding[..., None], 0.0)  # otherwise padding would leak into valid frames
        left = self.left
        if state is not None:
            past, left = state.convolution.transpose(1, 2), 0
            x, past = with_left_context(x, past, 1, frames.advance)
            state.convolution = past.transpose(1, 2)
        x = self.depthwise(x, left, frames)
        x = silu(normalized(self.batch_norm, x))
        return pointwise(self.pointwise_conv2, x)

    def depthwise(self, x: Tensor, left: int, frames: Frames) -> Tensor:
        """Convolve ``x`` over time, with ``left`` zeros before the first frame: (B, T, 2D) -> (B, T, 2D).

        In a stream, ``left`` is 0, and ``x`` begins with the remembered frames of earlier chunks.
        """
        return depthwise(self.depthwise_conv, x, left, self.right)


class ChunkedConvolutionModule(ConvolutionModule):
    """Dynamic chunk convolution: a frame sees zeros in place of the frames after the end of its chunk.

    The chunks are the chunks of attention. If attention has no chunks, this module equals ``ConvolutionModule``.
    Source: Li et al. 2023, arXiv 2304.09325.
    """

    chunked = True

    def depthwise(self, x: Tensor, left: int, frames: Frames) -> Tensor:
        """Convolve each chunk separately, with the frames before the chunk: (B, T, 2D) -> (B, T, 2D).

        In a stream, ``left`` is 0, and ``x`` begins with the remembered frames of earlier chunks.
        """
        chunk, b, t, d = frames.context.chunk, x.size(0), frames.padding.size(1), x.size(2)
        if not chunk:
            return super().depthwise(x, left, frames)
        x = overlapping(pad(x, (0, 0, left, chunk - 1)), 1, self.left + chunk, chunk)  # (B, N, left + chunk, 2D)
        x = x.reshape(-1, self.left + chunk, d)  # the ONNX export of flatten(0, 1) has a shape of size 0
        x = depthwise(self.depthwise_conv, x, 0, self.right)  # (B * N, chunk, 2D)
        return x.reshape(b, -1, d)[:, :t]


class ChannelLayerNorm(nn.LayerNorm):
    """A LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class InstanceNorm(nn.Module):
    """A norm that gives each channel of (B, C, T) zero mean and unit variance over the T frames.

    The statistics include padding. A single frame becomes 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5)


@plain_module
class FusedBatchNorm(nn.Module):
    """A trainable affine map that equals a BatchNorm in evaluation, for fine-tuning with frozen statistics."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None] + self.bias[:, None]


def conv_context(kernel_size: int, context: str | Sequence[int] | None) -> tuple[int, int]:
    """Return the number of frames (left, right) that the convolution sees before and after each frame.

    Args:
        kernel_size: ``conv_kernel_size`` of the encoder.
        context: ``conv_context_size`` of the encoder.

    Raises:
        ValueError: The kernel size is even, or left + 1 + right is not the kernel size.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"conv_kernel_size={kernel_size} must be odd, so that a window has a middle frame")
    if context is None:
        return kernel_size // 2, kernel_size // 2
    if context == "causal":
        return kernel_size - 1, 0
    if isinstance(context, str) or len(context) != 2 or min(context) < 0 or sum(context) + 1 != kernel_size:
        raise ValueError(
            f"conv_context_size={context if isinstance(context, str) else list(context)}: expected None, 'causal', or "
            f"[left, right] with left + 1 + right equal to conv_kernel_size={kernel_size}"
        )
    return context[0], context[1]


def build_convolution(style: str, contexts: ContextSettings) -> type[ConvolutionModule]:
    """Return the class of the convolution module for ``conv_context_style``.

    Raises:
        ValueError: The style is unknown, or the style is ``dcc`` and attention has no chunks.
    """
    if style not in ("regular", "dcc"):
        raise ValueError(f"conv_context_style={style!r}: expected 'regular' or 'dcc'")
    if style == "regular":
        return ConvolutionModule
    if contexts.style == "regular":
        raise ValueError(
            "conv_context_style='dcc' needs the chunks of attention: set att_context_style='chunked_limited' or "
            "'chunked_limited_with_rc'"
        )
    return ChunkedConvolutionModule


def conv_norm(name: str, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """Return the norm called ``name`` for inputs (B, ``channels``, T).

    Args:
        name: ``conv_norm_type`` of the encoder.
        channels: Number of channels.
        eps: Epsilon of a batch norm or a layer norm.
        momentum: Momentum of a batch norm.

    Raises:
        ValueError: The name is unknown.
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
