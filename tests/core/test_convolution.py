"""The convolution module: which frames it sees, and dynamic chunk convolution."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nemo_squeezeformer.core.convolution import ChunkedConvolutionModule, ConvolutionModule
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.operations import depthwise, normalized, pointwise
from tests.samples.encoders import enliven, small_encoder


def frames_of(t: int, chunk: int = 0) -> Frames:
    return Frames.of(torch.tensor([t, max(1, t - 3)]), t, Context(-1, 0, chunk) if chunk else Context())


@pytest.mark.parametrize("context, left, right", [(None, 3, 3), ("causal", 6, 0), ([4, 2], 4, 2), ([0, 6], 0, 6)])
def test_a_frame_sees_its_context_and_no_further(context, left, right):
    module = ConvolutionModule(8, 7, context=context).eval()
    x = torch.randn(2, 30, 8)
    moved = x.clone()
    moved[0, 15] += 1.0
    changed = (module(x, frames_of(30)) - module(moved, frames_of(30))).abs().amax(dim=-1)[0] > 1e-7
    assert changed.nonzero().flatten().tolist() == list(range(15 - right, 15 + left + 1))


@pytest.mark.parametrize("t", [1, 5, 8, 21])
@pytest.mark.parametrize("chunk", [1, 4, 10])
@pytest.mark.parametrize("context", [None, [5, 1], "causal"])
def test_in_chunks_it_is_the_convolution_of_what_came_until_then(t, chunk, context):
    chunked = ChunkedConvolutionModule(8, 7, context=context).eval()
    enliven(chunked)
    plain = ConvolutionModule(8, 7, context=context).eval()
    plain.load_state_dict(chunked.state_dict())
    x = torch.randn(2, t, 8)
    expected = torch.zeros(2, t, 8)
    for end in range(chunk, t + chunk, chunk):
        seen, frames = x[:, :end], frames_of(t)
        until = Frames(frames.lengths, frames.padding[:, :end], frames.absent[:, :end], Context())
        expected[:, end - chunk : end] = plain(seen, until)[:, end - chunk : end]
    assert_close(chunked(x, frames_of(t, chunk)), expected, atol=1e-6, rtol=0)
    assert_close(chunked(x, frames_of(t)), plain(x, frames_of(t)), atol=1e-6, rtol=0)


class Elsewhere(nn.Conv1d):
    """A convolution that is more than its weights."""

    def forward(self, x):
        return super().forward(x) + 1.0


@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_product_is_what_the_convolution_makes_of_the_frames(bias):
    for conv in (nn.Conv1d(8, 16, 1, bias=bias), Elsewhere(8, 16, 1, bias=bias)):
        for t in (1, 2, 7):
            x = torch.randn(3, t, 8)
            assert_close(pointwise(conv, x), conv(x.transpose(1, 2)).transpose(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("left, right", [(3, 3), (6, 0), (4, 2), (0, 0)])
@pytest.mark.parametrize("kind", [nn.Conv1d, Elsewhere])
def test_a_depthwise_convolution_by_frames_is_pytorchs_with_its_gradients(kind, left, right, stride, bias):
    conv = kind(8, 8, 7, stride=stride, groups=8, bias=bias)
    for t in (7, 8, 33, 40):
        x = torch.randn(3, t, 8, requires_grad=True)
        expected = conv(nn.functional.pad(x.transpose(1, 2), (left, right))).transpose(1, 2)
        output, onto = depthwise(conv, x, left, right), torch.randn_like(expected)
        given = [x, *conv.parameters()]
        gradients = zip(torch.autograd.grad(output, given, onto), torch.autograd.grad(expected, given, onto))
        assert_close(output, expected, atol=1e-5, rtol=0)
        for gradient, wanted in gradients:
            assert_close(gradient, wanted, atol=1e-4, rtol=1e-5)  # sums over 120 frames
        with torch.no_grad():
            assert_close(depthwise(conv, x, left, right), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("t", [16, 17, 32])
def test_gradients_may_lie_in_memory_as_a_batch_norm_leaves_them(t):
    conv, x = nn.Conv1d(6, 6, 7, groups=6), torch.randn(3, t, 6, requires_grad=True)
    upstream = torch.randn(3, 6, t).transpose(1, 2)  # (B, T, C) of (B, C, T)
    wanted = [x, *conv.parameters()]
    actual = torch.autograd.grad(depthwise(conv, x, 3, 3), wanted, upstream)
    padded = nn.functional.pad(x.transpose(1, 2), (3, 3))
    expected = torch.autograd.grad(conv(padded).transpose(1, 2), wanted, upstream)
    for a, b in zip(actual, expected):
        assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_few_channels_in_bfloat16_are_convolved_too():
    conv, x = nn.Conv1d(16, 16, 31, groups=16), torch.randn(1, 33, 16)
    low = depthwise(copy.deepcopy(conv).bfloat16(), x.bfloat16(), 15, 15)
    assert_close(low.float(), depthwise(conv, x, 15, 15), atol=0.05, rtol=0)


def test_a_convolution_with_a_hook_computes_itself():
    conv, x = nn.Conv1d(8, 8, 7, groups=8), torch.randn(3, 20, 8)
    expected = depthwise(conv, x, 3, 3)
    conv.register_forward_hook(lambda module, args, output: output + 1.0)
    assert_close(depthwise(conv, x, 3, 3), expected + 1.0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_of_all_frames_at_once_is_that_of_each_channel_over_time(training):
    ours, expected = (nn.BatchNorm1d(8).train(training) for _ in range(2))
    x = torch.randn(3, 20, 8) + 1.0
    assert_close(normalized(ours, x), expected(x.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=0)
    assert_close(ours.state_dict(), expected.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"conv_context_size": [3, 2]}, r"conv_context_size=\[3, 2\]: .* make conv_kernel_size=7"),
        ({"conv_context_size": "symmetric"}, "conv_context_size=symmetric: expected None, 'causal'"),
        ({"conv_context_style": "dcc"}, "conv_context_style='dcc' goes by the chunks of attention"),
        ({"conv_context_style": "chunked"}, "conv_context_style='chunked': expected 'regular' or 'dcc'"),
    ],
)
def test_a_context_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small_encoder(**settings)
