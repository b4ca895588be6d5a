"""The depthwise convolution over time, in operations that are fast in ONNX Runtime."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, pad

from nemo_squeezeformer.core.dispatch import implements
from nemo_squeezeformer.core.operations import depthwise


class GraphConvolution(nn.Module):
    """A depthwise convolution that a recorded graph computes in two dimensions. The second dimension has size 1.

    For two dimensions, ONNX Runtime has kernels that process blocks of channels. These kernels are about twice as fast
    as the kernels for one dimension. While these kernels read and write frames, they also perform the transposes before
    and after the convolution.
    """

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        self.weight, self.bias, self.groups = conv.weight, conv.bias, conv.groups
        self.in_channels = conv.in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Convolve without zero padding: (B, C, T) -> (B, C, T - K + 1)."""
        return conv1d(x, self.weight, self.bias, groups=self.groups)


@implements(depthwise, graphs=True, when=lambda conv, *args: type(conv) is GraphConvolution)
def depthwise_of_two_dimensions(conv: GraphConvolution, x: Tensor, left: int, right: int) -> Tensor:
    """Convolve in two dimensions: (B, T, C) -> (B, left + T + right - K + 1, C)."""
    around = left if left == right else 0
    if left != right:
        x = pad(x, (0, 0, left, right))
    x = x[:, :, None].permute(0, 3, 1, 2)  # (B, C, T, 1)
    x = conv2d(x, conv.weight[..., None], conv.bias, padding=(around, 0), groups=conv.groups)
    return x.permute(0, 2, 3, 1).flatten(2)
