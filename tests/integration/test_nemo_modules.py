"""Tests that modules with settings of NeMo's ConformerEncoder equal NeMo's modules with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nemo.collections.asr.modules import ConformerEncoder
from nemo.collections.asr.parts.submodules import multi_head_attention as theirs
from nemo.collections.asr.parts.submodules.conformer_modules import ConformerConvolution, ConformerFeedForward
from nemo.collections.asr.parts.submodules.subsampling import ConvSubsampling
from torch.testing import assert_close

from nemo_squeezeformer.core.attention.kernel import PlainKernel
from nemo_squeezeformer.core.attention.local_attention import LocalAttention
from nemo_squeezeformer.core.attention.multi_head import MultiHeadAttention, RelPositionAttention
from nemo_squeezeformer.core.attention.positions import LocalPositions, RelativePositions
from nemo_squeezeformer.core.convolution import ConvolutionModule
from nemo_squeezeformer.core.feed_forward import FeedForward
from nemo_squeezeformer.core.frames.context import Context, ContextSettings
from nemo_squeezeformer.core.frames.margins import CAUSAL, CENTRED
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels.query_blocks import QueryBlocks
from nemo_squeezeformer.core.kernels.sdpa import SDPA
from nemo_squeezeformer.core.subsampling import build_subsampling
from tests.samples.encoders import enliven, features

LENGTHS = torch.tensor([37, 20, 1])


def batch(context: Context) -> tuple[torch.Tensor, Frames]:
    x = torch.randn(3, 37, 16, generator=torch.Generator().manual_seed(0))
    return x, Frames.of(LENGTHS, 37, context)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "kernel", [PlainKernel(), SDPA(), SDPA(["MATH"]), QueryBlocks()], ids=lambda kernel: type(kernel).__name__
)
@pytest.mark.parametrize("model", ["rel_pos", "abs_pos"])
def test_attention_equals_nemos(model, kernel, use_bias):
    x, frames = batch(Context(8, 4))
    options = {"use_bias": use_bias, "use_pytorch_sdpa": isinstance(kernel, SDPA)}
    if model == "rel_pos":
        ours: MultiHeadAttention = RelPositionAttention(16, 4, use_bias=use_bias, kernel=kernel)
        other = theirs.RelPositionMultiHeadAttention(4, 16, 0.0, None, None, **options).eval()
        positions = RelativePositions()(x, frames)[1]
        arguments = {"pos_emb": positions[None]}
    else:
        ours, positions, arguments = MultiHeadAttention(16, 4, use_bias=use_bias, kernel=kernel), None, {}
        other = theirs.MultiHeadAttention(4, 16, 0.0, **options).eval()
    enliven(ours)
    other.load_state_dict(ours.state_dict(), strict=True)
    output, expected = ours(x, frames, positions), other(x, x, x, mask=frames.blocked, **arguments)
    assert_close(output, expected, atol=1e-5, rtol=0)
    ours.linear_v.weight.data.mul_(1.1)
    assert (ours(x, frames, positions) - expected).abs().max() > 0.01


@pytest.mark.parametrize("kernel", [PlainKernel(), SDPA()])
def test_attention_drops_weights_only_in_training(kernel):
    attention = RelPositionAttention(16, 4, dropout=0.5, kernel=kernel)
    x, frames = batch(Context())
    positions = RelativePositions()(x, frames)[1]
    assert (attention(x, frames, positions) - attention(x, frames, positions)).abs().max() > 0.01
    attention.eval()
    assert_close(attention(x, frames, positions), attention(x, frames, positions), atol=0, rtol=0)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("tokens, spacing, separate", [(0, 1, False), (1, 1, False), (1, 1, True), (3, 5, True)])
@pytest.mark.parametrize("width", [4, 16])
def test_local_attention_equals_nemos_longformer(width, tokens, spacing, separate, use_bias):
    """Compare only the cases that NeMo computes correctly.

    NeMo's windows have the same width on both sides. The rows of global tokens are compared only for one token.
    """
    ours = LocalAttention(16, 4, 0.0, use_bias, None, tokens, spacing, separate).eval()
    enliven(ours)
    other = theirs.RelPositionMultiHeadAttentionLongformer(
        4,
        16,
        0.0,
        None,
        None,
        [width, width],
        global_tokens=tokens,
        global_tokens_spacing=spacing,
        global_attn_separate=separate,
        use_bias=use_bias,
    ).eval()
    other.load_state_dict(ours.state_dict(), strict=True)
    x, frames = batch(Context(width, width))
    if tokens > 1:  # with several global tokens, NeMo also treats padding as global tokens
        x, frames = x[:1], Frames.of(LENGTHS[:1], 37, Context(width, width))
    positions = LocalPositions()(x, frames)[1]
    output, expected = ours(x, frames, positions), other(x, x, x, frames.padding, positions[None])
    compared = ~frames.padding
    if tokens > 1:
        compared[:, ours.tokens] = False
    assert_close(output[compared], expected[compared], atol=1e-5, rtol=0)
    assert set(ours.state_dict()) == set(other.state_dict())


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("context", [None, "causal", [5, 1]])
@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "instance_norm", "fused_batch_norm", "group_norm4"])
def test_the_convolution_module_equals_nemos(norm, context, use_bias):
    """NeMo's module uses the option of Swish instead of GLU, which doubles the width."""
    ours = ConvolutionModule(16, 7, norm, context, use_bias).eval()
    enliven(ours)
    resolved = {None: None, "causal": [6, 0]}.get(context, context) if not isinstance(context, list) else context
    norm_of_nemo = "batch_norm" if norm.startswith("group_norm") else norm  # NeMo's group norm has half the channels
    other = ConformerConvolution(16, 7, norm_of_nemo, resolved, "swish", use_bias=use_bias)
    if norm.startswith("group_norm"):
        other.batch_norm = torch.nn.GroupNorm(4, 32)
    other.eval().load_state_dict(ours.state_dict(), strict=True)
    x, frames = batch(Context())
    valid = ~frames.padding
    assert_close(ours(x, frames)[valid], other(x, frames.padding)[valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_feed_forward_module_equals_nemos(use_bias):
    ours, other = FeedForward(16, 64, use_bias=use_bias), ConformerFeedForward(16, 64, 0.0, use_bias=use_bias)
    other.load_state_dict(ours.state_dict(), strict=True)
    x, _ = batch(Context())
    assert_close(ours(x), other(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("kind", ["dw_striding", "striding"])
@pytest.mark.parametrize("feat_in", [20, 13])
def test_subsampling_equals_nemos(kind, factor, causal, feat_in):
    ours = build_subsampling(kind, feat_in, 16, factor, 8, CAUSAL if causal else CENTRED)
    enliven(ours)
    other = ConvSubsampling(kind, factor, feat_in, 16, 8, is_causal=causal)
    other.load_state_dict(ours.state_dict(), strict=True)
    for length in (1, 2, 7, 8, 9, 33, 64, 65):
        lengths = torch.tensor([length, max(1, length // 2), max(1, length - 3)])
        x = features(3, length, feat_in).transpose(1, 2)
        x = x.masked_fill((torch.arange(length) >= lengths[:, None])[..., None], 0.0)
        (output, shorter), (expected, theirs_shorter) = ours(x, lengths), other(x, lengths)
        assert shorter.tolist() == theirs_shorter.tolist() and output.shape == expected.shape
        for row, kept in enumerate(shorter.tolist()):
            assert_close(output[row, :kept], expected[row, :kept], atol=1e-5, rtol=0)


MASKS: list[tuple[str, list[int]]] = [
    ("regular", [-1, -1]),
    ("regular", [5, 3]),
    ("regular", [-1, 0]),
    ("chunked_limited", [8, 3]),
    ("chunked_limited", [-1, 1]),
    ("chunked_limited", [0, 4]),
    ("chunked_limited_with_rc", [6, 4, 2]),
    ("chunked_limited_with_rc", [8, 3, 1]),
    ("chunked_limited_with_rc", [-1, -1, -1]),
]


@pytest.mark.parametrize("style, size", MASKS)
def test_masks_equal_nemos(style, size):
    if "with_rc" in style and "att_chunk_context_size" not in ConformerEncoder.__init__.__code__.co_varnames:
        pytest.skip("this NeMo has no chunked_limited_with_rc")
    settings: dict[str, Any] = {"feat_in": 20, "n_layers": 1, "d_model": 16, "att_context_style": style}
    encoder = ConformerEncoder(**settings, att_context_size=None if "with_rc" in style else size)
    padding, blocked = encoder._create_masks(
        att_context_size=size, padding_length=LENGTHS, max_audio_length=37, offset=None, device=torch.device("cpu")
    )
    frames = Frames.of(LENGTHS, 37, Context.of(size, style))
    assert_close(frames.padding, padding)
    assert_close(frames.blocked, blocked)


def test_sizes_and_probabilities_equal_nemos():
    for size in ([70, 13], [[70, 13], [70, 6], [70, 1], [70, 0]], None):
        settings = ContextSettings(size, style="chunked_limited" if size else "regular")
        encoder = ConformerEncoder(
            feat_in=20,
            n_layers=1,
            d_model=16,
            att_context_size=size,
            att_context_style="chunked_limited" if size else "regular",
        )
        assert settings.sizes == encoder.att_context_size_all
        assert settings.probs == encoder.att_context_probs
