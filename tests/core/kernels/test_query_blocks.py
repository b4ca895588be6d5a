"""Tests of attention in blocks of queries and head by head: it equals the reference implementation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.inference import head_blocks
from nemo_squeezeformer.core.inference.head_blocks import HeadBlocks
from nemo_squeezeformer.core.kernels import query_blocks
from nemo_squeezeformer.core.kernels.query_blocks import QueryBlocks
from nemo_squeezeformer.core.kernels.sdpa import SDPA
from tests.samples.encoders import enliven, features, small_encoder

CONTEXTS = [Context(), Context(9, 4), Context(-1, 3), Context(5, -1), Context(8, 0, 4), Context(6, 2, 6), Context(1, 0)]
KEEP = nn.Dropout(0.0)


def inputs(b: int, t: int, s: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 * t + s)
    sizes = {"content": (b, 2, t, 7), "k": (b, 2, s, 7), "v": (b, 2, s, 7), "position": (b, 2, t, 7)}
    return {
        name: torch.randn(size, generator=generator) for name, size in (sizes | {"p": (1, 2, s + t - 1, 7)}).items()
    }


@pytest.fixture(params=[1, 3, 16])
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(query_blocks, "LEAST", request.param)
    monkeypatch.setattr(query_blocks, "MOST", request.param)
    monkeypatch.setattr(head_blocks, "QUERIES", request.param)
    monkeypatch.setattr(head_blocks, "MANY", 1)


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("kernel", [QueryBlocks(), HeadBlocks(), SDPA()], ids=lambda kernel: type(kernel).__name__)
def test_blocks_equal_the_reference_implementation(kernel, context, small_blocks):
    for t in (1, 2, 5, 16, 33):
        for lengths in ([t, t], [t, max(1, t // 2)]):
            frames, given = Frames.of(torch.tensor(lengths), t, context), inputs(2, t, t)
            assert frames.padded == (lengths[1] < t)
            expected = PlainKernel()(Operands(**given), frames, KEEP)
            assert_close(kernel(Operands(**given), frames, KEEP), expected, atol=1e-5, rtol=0)
            if t > 1:
                other = given | {"p": given["p"].roll(1, dims=2)}
                assert (kernel(Operands(**other), frames, KEEP) - expected).abs().max() > 0.01
            for name in ("position", "p"):
                given.pop(name)
            expected = PlainKernel()(Operands(**given), frames, KEEP)
            assert_close(kernel(Operands(**given), frames, KEEP), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [Context(9, 4), Context(8, 0, 4), Context(4, 0, 8)], ids=str)
@pytest.mark.parametrize("kernel", [QueryBlocks(), HeadBlocks()], ids=lambda kernel: type(kernel).__name__)
def test_blocks_equal_the_reference_implementation_in_streams(kernel, context, small_blocks):
    for t, past in ((4, 8), (8, 9), (3, 1), (8, 0)):
        cached, lengths = torch.tensor([past, past // 2, 0]), torch.tensor([t, t, max(1, t - 2)])
        frames, given = Frames.of_stream(lengths, t, context, cached, past, t), inputs(3, t, past + t)
        expected = PlainKernel()(Operands(**given), frames, KEEP)
        assert_close(kernel(Operands(**given), frames, KEEP), expected, atol=1e-5, rtol=0)


def test_blocks_do_not_read_keys_that_are_out_of_reach():
    frames, given = Frames.of(torch.tensor([600]), 600, Context(8, 8)), inputs(1, 600, 600)
    for name in ("k", "v"):
        given[name][:, :, 400:] = math.nan
    attended = QueryBlocks()(Operands(**given), frames, KEEP)
    assert attended[:, :, :250].isfinite().all() and attended[:, :, 400:].isnan().all()


@pytest.mark.parametrize("attention", ["auto", "blocks", "sdpa"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"self_attention_model": "abs_pos"},
        {"self_attention_model": "rope"},
        {"att_context_size": [16, 8]},
        {"self_attention_model": "rope", "att_context_size": [16, 8]},
        {"self_attention_model": "rope", "att_context_size": [16, 7], "att_context_style": "chunked_limited"},
    ],
    ids=str,
)
def test_an_encoder_gives_the_same_output_with_every_kernel(settings, attention):
    plain, other = (small_encoder(**settings, attention=form) for form in ("plain", attention))
    enliven(plain)
    other.load_state_dict(plain.state_dict())
    for t in (1, 40, 333, 1202):
        batch = features(3, t), torch.tensor([t, max(1, t // 2), 1])
        with torch.inference_mode():
            assert_close(other(*batch)[0], plain(*batch)[0], atol=1e-5, rtol=0)


def test_unknown_and_conflicting_kernels_are_refused():
    with pytest.raises(ValueError, match="attention='flush': expected one of 'auto', 'plain', 'blocks', 'sdpa'"):
        small_encoder(attention="flush")
    with pytest.raises(ValueError, match="attention='blocks' and use_pytorch_sdpa=True"):
        small_encoder(attention="blocks", use_pytorch_sdpa=True)
