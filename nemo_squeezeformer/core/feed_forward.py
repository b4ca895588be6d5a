"""The position-wise modules: the feed-forward module, and the learned scale before every module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .dispatch import dispatched, plain_module
from .dropout import Dropout


@plain_module
class ScaleBias(nn.Module):
    """The learned affine map that replaces the LayerNorm before each module (paper, section 3.2.2).

    With ``adaptive=False``, the map is always the identity. The state dict always contains the scale and the bias, as
    in NeMo 2.7.3.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, d_model: int, adaptive: bool = True):
        super().__init__()
        if adaptive:
            self.scale = nn.Parameter(torch.ones(d_model))
            self.bias = nn.Parameter(torch.zeros(d_model))
        else:
            self.register_buffer("scale", torch.ones(d_model))
            self.register_buffer("bias", torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift each channel: (B, T, D) -> (B, T, D)."""
        return x * self.scale + self.bias


class FeedForward(nn.Module):
    """The feed-forward module: a linear layer to width ``d_ff``, Swish, and a linear layer back to ``d_model``."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0, use_bias: bool = True):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff, bias=use_bias)
        self.linear2 = nn.Linear(d_ff, d_model, bias=use_bias)
        self.dropout = Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            init_uniform(linear, fan_in=linear.in_features)

    @dispatched
    def forward(self, x: Tensor) -> Tensor:
        """Apply the module: (B, T, D) -> (B, T, D)."""
        return self.linear2(self.dropout(silu(self.linear1(x))))


def init_uniform(module: nn.Linear | nn.Conv1d | nn.Conv2d, fan_in: float) -> None:
    """Initialize weight and bias uniformly between -1 / sqrt(fan_in) and 1 / sqrt(fan_in), as the authors do."""
    bound = fan_in**-0.5
    nn.init.uniform_(module.weight, -bound, bound)
    if module.bias is not None:
        nn.init.uniform_(module.bias, -bound, bound)
