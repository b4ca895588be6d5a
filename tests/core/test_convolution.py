"""Tests of the convolution module: the frames that it sees, and dynamic chunk convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nemo_squeezeformer.core.convolution import ChunkedConvolutionModule, ConvolutionModule
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.operations import normalized, pointwise
from tests.samples.encoders import enliven, small_encoder


def frames_of(t: int, chunk: int = 0) -> Frames:
    return Frames.of(torch.tensor([t, max(1, t - 3)]), t, Context(-1, 0, chunk) if chunk else Context())


@pytest.mark.parametrize("context, left, right", [(None, 3, 3), ("causal", 6, 0), ([4, 2], 4, 2), ([0, 6], 0, 6)])
def test_a_frame_sees_exactly_its_context(context, left, right):
    module = ConvolutionModule(8, 7, context=context).eval()
    x = torch.randn(2, 30, 8)
    moved = x.clone()
    moved[0, 15] += 1.0
    changed = (module(x, frames_of(30)) - module(moved, frames_of(30))).abs().amax(dim=-1)[0] > 1e-7
    assert changed.nonzero().flatten().tolist() == list(range(15 - right, 15 + left + 1))


@pytest.mark.parametrize("t", [1, 5, 8, 21])
@pytest.mark.parametrize("chunk", [1, 4, 10])
@pytest.mark.parametrize("context", [None, [5, 1], "causal"])
def test_a_chunked_convolution_equals_the_convolution_of_the_input_up_to_the_chunk_end(t, chunk, context):
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
    """A convolution that is not plain: its output differs from the output of its weights."""

    def forward(self, x):
        return super().forward(x) + 1.0


@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_product_equals_the_convolution(bias):
    for conv in (nn.Conv1d(8, 16, 1, bias=bias), Elsewhere(8, 16, 1, bias=bias)):
        for t in (1, 2, 7):
            x = torch.randn(3, t, 8)
            assert_close(pointwise(conv, x), conv(x.transpose(1, 2)).transpose(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_normalized_equals_the_batch_norm_of_channels_first_frames(training):
    ours, expected = (nn.BatchNorm1d(8).train(training) for _ in range(2))
    x = torch.randn(3, 20, 8) + 1.0
    assert_close(normalized(ours, x), expected(x.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=0)
    assert_close(ours.state_dict(), expected.state_dict(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"conv_context_size": [3, 2]}, r"conv_context_size=\[3, 2\]: .* equal to conv_kernel_size=7"),
        ({"conv_context_size": "symmetric"}, "conv_context_size=symmetric: expected None, 'causal'"),
        ({"conv_context_style": "dcc"}, "conv_context_style='dcc' needs the chunks of attention"),
        ({"conv_context_style": "chunked"}, "conv_context_style='chunked': expected 'regular' or 'dcc'"),
    ],
)
def test_an_invalid_context_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small_encoder(**settings)
