"""The two ends of the temporal U-Net: the reduction layer, and the upsampling before the recovery layer.

The layers between the two ends run at half the frame rate (paper, section 3.1.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .feed_forward import init_uniform
from .frames.masks import Frames
from .frames.spans import Span
from .frames.state import ReductionState, with_left_context
from .operations import depthwise, pointwise

__all__ = ["Span", "TimeReduction", "refuse_reduction", "upsample"]


class TimeReduction(nn.Module):
    """The reduction layer: a depthwise-separable convolution with stride 2.

    Output frame t sees the input frames 2t - left to 2t - left + 4. With ``left=3``, the last of these input frames is
    2t + 1. Therefore no output frame sees input frames after its pair 2t and 2t + 1, and the layer can stream.
    """

    KERNEL = 5

    def __init__(self, d_model: int, left: int = 3):
        super().__init__()
        self.left = left
        self.dw_conv = nn.Conv1d(d_model, d_model, self.KERNEL, stride=2, groups=d_model)
        self.pw_conv = nn.Conv1d(d_model, d_model, kernel_size=1)
        init_uniform(self.dw_conv, fan_in=self.KERNEL)
        init_uniform(self.pw_conv, fan_in=d_model)

    def forward(self, x: Tensor, frames: Frames, state: ReductionState | None = None) -> Tensor:
        """Halve the frame rate: (B, T, D) -> (B, ceil(T / 2), D)."""
        if frames.padded:
            x = x.masked_fill(frames.padding[..., None], 0.0)
        left = self.left
        if state is not None:
            past, left = state.reduction.transpose(1, 2), 0
            x, past = with_left_context(x, past, 1, frames.advance)
            state.reduction = past.transpose(1, 2)
        right = self.KERNEL - 1 - self.left  # enough zeros for the window of an odd last frame
        x = depthwise(self.dw_conv, x, left, right)
        return pointwise(self.pw_conv, x)


def upsample(x: Tensor, t: int) -> Tensor:
    """Repeat each frame: (B, ceil(t / 2), D) -> (B, t, D).

    The frames are selected by index. Repeating and cutting would fix a traced graph to odd or to even ``t``.
    """
    return x.index_select(1, torch.arange(t, device=x.device) // 2)


def refuse_reduction(reduction: str | None, position: int | None, factor: int) -> None:
    """Raise ``ValueError`` if the reduction of NeMo's ``ConformerEncoder`` is on.

    The temporal U-Net replaces this reduction.
    """
    if reduction and factor > 1:
        raise ValueError(
            f"reduction={reduction!r}, reduction_position={position}, reduction_factor={factor}: not supported. "
            "time_reduce_idx and time_recovery_idx reduce the frame rate between layers, and subsampling_factor "
            "reduces the frame rate before the layers; set reduction=None"
        )
