"""The depthwise convolution over time as ONNX Runtime is fast at it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, pad

from nemo_squeezeformer.core.dispatch import implements
from nemo_squeezeformer.core.operations import depthwise


class GraphConvolution(nn.Module):
    """The weights of a depthwise convolution, which a graph uses for one of two dimensions, the second being 1.

    For these ONNX Runtime has kernels that go by blocks of channels, about twice as fast as those of one dimension, and
    the transposes around it become part of how they read and write.
    """

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        self.weight, self.bias, self.groups = conv.weight, conv.bias, conv.groups
        self.in_channels = conv.in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T - K + 1)"""
        return conv1d(x, self.weight, self.bias, groups=self.groups)


@implements(depthwise, graphs=True, when=lambda conv, *args: type(conv) is GraphConvolution)
def depthwise_of_two_dimensions(conv: GraphConvolution, x: Tensor, left: int, right: int) -> Tensor:
    """(B, T, C) -> (B, left + T + right - K + 1, C)"""
    around = left if left == right else 0
    if left != right:
        x = pad(x, (0, 0, left, right))
    x = x[:, :, None].permute(0, 3, 1, 2)  # (B, C, T, 1)
    x = conv2d(x, conv.weight[..., None], conv.bias, padding=(around, 0), groups=conv.groups)
    return x.permute(0, 2, 3, 1).flatten(2)
