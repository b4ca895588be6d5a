"""The depthwise convolution of contiguous frames (B, T, C), and the gradient of the weight of this convolution.

Matrix products return frames in the memory layout (B, T, C). ``nn.Conv1d`` needs (B, C, T), so PyTorch would copy the
frames before and after ``nn.Conv1d``.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv1d, conv2d, pad

BLOCK = 16  # number of frames of ``grad`` in a product of ``gradient_of_weight``
# With at most this number of channels, in bfloat16 and channels last, oneDNN never finishes a convolution whose kernel
# has 15 frames or more.
NARROW = 16


def by_frames(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, right: int) -> Tensor:
    """Convolve frames: x (B, T, C), weight (C, 1, K), bias (C,) -> (B, left + T + right - K + 1, C).

    ``left`` zeros precede the frames, and ``right`` zeros follow the frames.
    """
    if x.size(2) <= NARROW and x.element_size() < 4:
        x = pad(x.transpose(1, 2), (left, right))
        return conv1d(x, weight, bias, groups=x.size(1)).transpose(1, 2)
    if left != right:
        x, left = pad(x, (0, 0, left, right)), 0
    x = x.transpose(1, 2)[:, :, None]  # (B, C, 1, T), channels last
    y = conv2d(x, weight[:, :, None], bias, padding=(0, left), groups=x.size(1))
    return y[:, :, 0].transpose(1, 2)


def gradient_of_weight(x: Tensor, grad: Tensor, kernel: int, left: int) -> Tensor:
    """Return the gradient of the weight: x (B, T, C), grad (B, U, C) -> (C, 1, K).

    Element k is the sum over u of grad[u] x[u + k - left]. Each block of ``grad`` is multiplied with all frames of
    ``x`` that the block sees. In this product, the terms of element k are on a diagonal.
    """
    b, u, c = grad.shape
    n, width = -(-u // BLOCK), BLOCK + kernel - 1
    end = n * BLOCK
    blocks = pad(grad.permute(2, 0, 1), (0, end - u)).reshape(c, b * n, BLOCK)
    x = pad(x.permute(2, 0, 1), (left, end + kernel - 1 - left - x.size(1)))  # (C, B, end + K - 1)
    seen = x.unfold(2, width, BLOCK).reshape(c, b * n, width)
    product = blocks.transpose(1, 2) @ seen  # (C, BLOCK, width)
    diagonals = product.as_strided((c, BLOCK, kernel), (BLOCK * width, width + 1, 1))
    return diagonals.sum(1)[:, None]
