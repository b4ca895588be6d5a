"""The Squeezeformer layer: attention, feed-forward, convolution, feed-forward (paper, sections 3.1.2 and 3.2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention.multi_head import MultiHeadAttention
from .convolution import ConvolutionModule
from .dropout import Dropout
from .feed_forward import FeedForward, ScaleBias
from .frames.masks import Frames
from .frames.state import LayerState


class SqueezeformerLayer(nn.Module):
    """A Squeezeformer layer with four residual branches.

    Each branch is a learned scale and a module. A LayerNorm normalizes the sum of the input and the output of a branch.
    ``branch_weight`` is the weight of the output in this sum: 1 in the paper, and less with DeepNorm.
    """

    gated = False  # True if the convolution module is the module of Conformer, with GLU
    pre_norm = False  # True if branches start with a LayerNorm; the encoder then has no LayerNorm before the layers

    branch_weight = 1.0  # of an encoder that was pickled before DeepNorm

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        self_attn: MultiHeadAttention,
        conv: ConvolutionModule,
        dropout: float = 0.0,
        adaptive_scale: bool = True,
        use_bias: bool = True,
        eps: float = 1e-5,
        branch_weight: float = 1.0,
    ):
        super().__init__()
        self.branch_weight = branch_weight
        self.self_attn_scale = self.entrance(d_model, adaptive_scale, eps)
        self.self_attn = self_attn
        self.norm_self_att = nn.LayerNorm(d_model, eps)

        self.feed_forward1_scale = self.entrance(d_model, adaptive_scale, eps)
        self.feed_forward1 = FeedForward(d_model, d_ff, dropout, use_bias)
        self.norm_feed_forward1 = nn.LayerNorm(d_model, eps)

        self.conv_scale = self.entrance(d_model, adaptive_scale, eps)
        self.conv = conv
        self.norm_conv = nn.LayerNorm(d_model, eps)

        self.feed_forward2_scale = self.entrance(d_model, adaptive_scale, eps)
        self.feed_forward2 = FeedForward(d_model, d_ff, dropout, use_bias)
        self.norm_feed_forward2 = nn.LayerNorm(d_model, eps)
        self.dropout = Dropout(dropout)

    def entrance(self, d_model: int, adaptive_scale: bool, eps: float) -> nn.Module:
        """Return the first module of a branch, before attention, feed-forward or convolution."""
        return ScaleBias(d_model, adaptive_scale)

    def last_operations(self) -> list[nn.Linear | nn.Conv1d]:
        """Return the last linear layer or convolution of each module."""
        return [
            self.self_attn.linear_out,
            self.feed_forward1.linear2,
            self.conv.pointwise_conv2,
            self.feed_forward2.linear2,
        ]

    def forward(self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None = None) -> Tensor:
        """Run the layer: x (B, T, D), positions (S + T - 1, D) or None -> (B, T, D)."""
        attended = self.self_attn(self.self_attn_scale(x), frames, positions, state)
        x = self.norm_self_att(self.add(x, attended))
        adapted = self.adapt("attention", x, frames, positions)
        x = self.norm_feed_forward1(self.add(x, self.feed_forward1(self.feed_forward1_scale(adapted))))
        x = self.norm_conv(self.add(x, self.conv(self.conv_scale(x), frames, state)))
        x = self.norm_feed_forward2(self.add(x, self.feed_forward2(self.feed_forward2_scale(x))))
        return self.adapt("layer", x, frames, positions)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """Return the sum of ``x`` and the weighted output of a residual branch, both (B, T, D)."""
        return torch.add(x, self.dropout(branch), alpha=self.branch_weight)

    def adapt(self, after: str, x: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Return ``x`` (B, T, D) unchanged; subclasses apply adapters here.

        The result after ``attention`` is the input of the first feed-forward module, but not the input of the residual
        connection around this module.

        Args:
            after: The step that is complete: ``attention``, or ``layer`` for the whole layer.
        """
        return x
