"""The two ends of the temporal U-Net: halve the frame rate, and bring it back (paper, section 3.1.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .feed_forward import init_uniform
from .frames import Frames
from .streaming import EncoderState, with_left_context


class TimeReduction(nn.Module):
    """Depthwise-separable convolution with stride 2: frame t of the output sees frames 2t-3 ... 2t+1.

    It looks no further ahead than the pair it merges, so it streams as it is.
    """

    LEFT = 3

    def __init__(self, d_model: int):
        super().__init__()
        self.dw_conv = nn.Conv1d(d_model, d_model, kernel_size=5, stride=2, groups=d_model)
        self.pw_conv = nn.Conv1d(d_model, d_model, kernel_size=1)
        init_uniform(self.dw_conv, fan_in=5)
        init_uniform(self.pw_conv, fan_in=d_model)

    def forward(self, x: Tensor, frames: Frames, state: EncoderState | None = None) -> Tensor:
        """(B, T, D) -> (B, ceil(T / 2), D)"""
        x = x.transpose(1, 2).masked_fill(frames.padding[:, None], 0.0)  # (B, D, T)
        if state is None:
            x = pad(x, (self.LEFT, 0))
        else:
            x, state.reduction = with_left_context(x, state.reduction, dim=-1, keep=self.LEFT)
        x = pad(x, (0, 1))  # the second half of an odd last pair; an even T does not reach it
        return self.pw_conv(self.dw_conv(x)).transpose(1, 2)


def upsample(x: Tensor, t: int) -> Tensor:
    """(B, ceil(t / 2), D) -> (B, t, D) by repeating each frame.

    By index, not by repeating and cutting: a cut would tie a traced graph to odd or to even ``t``.
    """
    return x.index_select(1, torch.arange(t, device=x.device) // 2)
