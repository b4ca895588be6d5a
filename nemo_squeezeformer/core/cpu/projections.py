"""Linear maps stored in other layers: convolutions of kernel 1, and the output of the subsampling."""

from __future__ import annotations

from torch import Tensor

from .linear import FastLinear


class FastPointwise(FastLinear):
    """What ``nn.Conv1d`` or ``nn.Conv2d`` of kernel 1 gives, as a product, of which channels lie together."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features, ...) -> (B, out_features, ...)"""
        last = x.dim() - 1
        x = super().forward(x.permute(0, *range(2, last + 1), 1))  # movedim, in words that ONNX has too
        return x.permute(0, last, *range(1, last))


class TurnedProjection(FastLinear):
    """A linear layer over F values of C channels each, of which ``channels_last`` takes C of F."""

    def __init__(self, weight: Tensor, bias: Tensor | None, channels: int):
        super().__init__(weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1), bias)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C * F) -> (B, T, out_features)"""
        b, t, _ = x.size()
        return super().forward(x.view(b, t, self.channels, -1).transpose(2, 3).flatten(2))

    def channels_last(self, x: Tensor) -> Tensor:
        """(B, T, F * C) -> (B, T, out_features)"""
        return super().forward(x)
