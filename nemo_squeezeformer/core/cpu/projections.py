"""Fast versions of two kinds of layers: convolutions with kernel size 1, and the output layer of the subsampling.

Both kinds of layers are linear maps.
"""

from __future__ import annotations

from torch import Tensor

from .linear import FastLinear


class FastPointwise(FastLinear):
    """A convolution with kernel size 1, computed as a matrix product.

    The result equals the result of ``nn.Conv1d`` or ``nn.Conv2d``. The channels of the result are contiguous in memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution: (B, in_features, ...) -> (B, out_features, ...)."""
        last = x.dim() - 1
        x = super().forward(x.permute(0, *range(2, last + 1), 1))  # movedim(1, -1), in operations that ONNX supports
        return x.permute(0, last, *range(1, last))


class TurnedProjection(FastLinear):
    """A linear layer over C channels with F values each, with an additional method for inputs in channels-last order.

    The weight is stored in channels-last order (out_features, F * C). The inputs of ``forward`` are in the order C, F
    of the original layer. The inputs of ``channels_last`` are in the order F, C.

    Args:
        weight: Weight of the original layer (out_features, C * F).
        bias: Bias (out_features,), or None.
        channels: Number of channels C.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, channels: int):
        super().__init__(weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1), bias)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (B, T, C * F) -> (B, T, out_features)."""
        b, t, _ = x.size()
        return super().forward(x.view(b, t, self.channels, -1).transpose(2, 3).flatten(2))

    def channels_last(self, x: Tensor) -> Tensor:
        """Apply the layer to inputs in channels-last order: (B, T, F * C) -> (B, T, out_features)."""
        return super().forward(x)
