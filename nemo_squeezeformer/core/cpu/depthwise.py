"""Depthwise convolution of frames that lie in memory one after another, as products leave them, and its gradient.

PyTorch's over (B, C, T) copies them to and fro.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv1d, conv2d, pad

BLOCK = 16  # frames of one product in the gradient of the weights
NARROW = 16  # channels of which, in bfloat16 and channels last, oneDNN never finishes a kernel of 15 frames or more


def by_frames(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, right: int) -> Tensor:
    """x: (B, T, C), weight: (C, 1, K) -> (B, left + T + right - K + 1, C), after zeros on both sides"""
    if x.size(2) <= NARROW and x.element_size() < 4:
        x = pad(x.transpose(1, 2), (left, right))
        return conv1d(x, weight, bias, groups=x.size(1)).transpose(1, 2)
    if left != right:
        x, left = pad(x, (0, 0, left, right)), 0
    x = x.transpose(1, 2)[:, :, None]  # (B, C, 1, T), channels last
    y = conv2d(x, weight[:, :, None], bias, padding=(0, left), groups=x.size(1))
    return y[:, :, 0].transpose(1, 2)


def gradient_of_weight(x: Tensor, grad: Tensor, kernel: int, left: int) -> Tensor:
    """x: (B, T, C), grad: (B, U, C) -> (C, 1, K): sum over u of grad[u] x[u + k - left].

    A product of blocks of ``grad`` with all of ``x`` that they see has the terms of each k on a diagonal.
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
