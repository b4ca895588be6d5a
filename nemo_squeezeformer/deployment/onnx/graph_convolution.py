"""The depthwise convolution over time as ONNX Runtime is fast at it."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv2d, pad

from nemo_squeezeformer.core.convolution import ConvolutionModule
from nemo_squeezeformer.core.frames.masks import Frames


class GraphConvolution(ConvolutionModule):
    """What ``ConvolutionModule`` gives, by a convolution of two dimensions, the second being 1.

    For these ONNX Runtime has kernels that go by blocks of channels, about twice as fast as those of one dimension, and
    the transposes around it become part of how they read and write.
    """

    def depthwise(self, x: Tensor, left: int, frames: Frames) -> Tensor:
        """(B, T, 2D), or T after what precedes it -> (B, T, 2D); ``left`` zeros precede it."""
        conv, around = self.depthwise_conv, 0
        if left == self.right:
            around = left
        else:
            x = pad(x, (0, 0, left, self.right))
        x = x[:, :, None].permute(0, 3, 1, 2)  # (B, 2D, T, 1)
        x = conv2d(x, conv.weight[..., None], conv.bias, padding=(around, 0), groups=conv.groups)
        return x.permute(0, 2, 3, 1).flatten(2)
