"""Tests of the depthwise convolution of frames (B, T, C): it equals PyTorch's, with the gradient of its weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import pad
from torch.testing import assert_close

from nemo_squeezeformer.core.cpu.depthwise import by_frames, gradient_of_weight


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("left, right", [(3, 3), (6, 0), (4, 2), (0, 0)])
def test_a_depthwise_convolution_by_frames_equals_pytorchs_with_its_gradient(left, right, bias):
    conv = nn.Conv1d(8, 8, 7, groups=8, bias=bias)
    for t in (7, 8, 16, 33, 40):
        x = torch.randn(3, t, 8)
        expected = conv(pad(x.transpose(1, 2), (left, right))).transpose(1, 2)
        assert_close(by_frames(x, conv.weight, conv.bias, left, right), expected, atol=1e-5, rtol=0)
        # The second upstream gradient is (B, C, T) in memory.
        for upstream in (torch.randn_like(expected), torch.randn(expected.mT.shape).mT):
            (wanted,) = torch.autograd.grad(expected, conv.weight, upstream, retain_graph=True)
            made = gradient_of_weight(x, upstream, 7, left)
            assert_close(made, wanted, atol=1e-4, rtol=1e-5)  # sums over 120 frames


def test_a_depthwise_convolution_works_with_few_channels_in_bfloat16():
    conv, x = nn.Conv1d(16, 16, 31, groups=16), torch.randn(1, 33, 16)
    low = by_frames(x.bfloat16(), conv.weight.bfloat16(), None, 15, 15)
    assert_close(low.float(), by_frames(x, conv.weight, None, 15, 15), atol=0.05, rtol=0)
