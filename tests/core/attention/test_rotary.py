"""Tests of rotary positions: the definition, the frame rates of the temporal U-Net, padding, gradients and streams."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.attention import positions
from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.attention.rotary import RotaryAttention
from nemo_squeezeformer.core.attention.rotation import parts, rotary_width, turned, turns
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.frames.state import LayerState
from nemo_squeezeformer.core.kernels import fused_blocks
from nemo_squeezeformer.core.kernels.fused_blocks import FusedBlocks
from nemo_squeezeformer.core.kernels.fused_training import FusedTraining
from nemo_squeezeformer.core.kernels.fused_windows import FusedWindows
from nemo_squeezeformer.core.kernels.sdpa import SDPA
from tests.samples.encoders import features, small_encoder, valid

ROUNDING = 1e-5  # float32 sums in another order
ROPE: dict[str, Any] = {"self_attention_model": "rope"}
KEEP = nn.Dropout(0.0)


class DefinedAttention(nn.Module):
    """Rotary attention as NeMo defines it, written from the definition with loops over heads, frames and pairs.

    A ``DefinedAttention`` can replace the attention of an encoder, whose U-Net and streams it does not know.
    """

    def __init__(self, attention: RotaryAttention, base: float, fraction: float):
        super().__init__()
        self.q, self.k, self.v = attention.linear_q, attention.linear_k, attention.linear_v
        self.out, self.heads = attention.linear_out, attention.n_heads
        self.base, self.fraction = base, fraction

    def turn(self, x: Tensor, first: int) -> Tensor:
        """Turn one head of one utterance: (T, d) -> (T, d). The position of the first frame is ``first``."""
        width = int(x.size(1) * self.fraction)
        rows = []
        for position, row in enumerate(x, start=first):
            new = list(row)
            for i in range(width // 2):
                angle = position * self.base ** (-2 * i / width)
                a, b = row[i], row[i + width // 2]
                new[i] = a * math.cos(angle) - b * math.sin(angle)
                new[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
            rows.append(torch.stack(new))
        return torch.stack(rows)

    def forward(self, x: Tensor, frames: Frames, positions: Tensor | None, state: None = None) -> Tensor:
        """Attend in a batch of whole utterances: (B, T, D) -> (B, T, D)."""
        none = x.new_zeros(0, x.size(2))
        return torch.stack([self.attend(row, max(int(n), 1), none) for row, n in zip(x, frames.lengths)])

    def attend(self, x: Tensor, length: int, cache: Tensor) -> Tensor:
        """Attend in one utterance: x (T, D) with ``length`` valid frames, cache (C, D) -> (T, D)."""
        context = torch.cat([cache, x])
        attended = []
        for head in range(self.heads):
            d = x.size(1) // self.heads
            part = slice(head * d, head * d + d)
            q = self.turn(self.q(x)[:, part], first=len(cache))
            k = self.turn(self.k(context)[:, part], first=0)
            scores = (q @ k.T / math.sqrt(d))[:, : len(cache) + length]
            attended.append(scores.softmax(dim=-1) @ self.v(context)[: len(cache) + length, part])
        return self.out(torch.cat(attended, dim=-1))


def attention_inputs(batch: int, t: int, s: int, d: int = 4) -> Operands:
    generator = torch.Generator().manual_seed(t)

    def random(frames: int) -> Tensor:
        return torch.randn(batch, 2, frames, d, generator=generator)

    return Operands(random(t), random(s), random(s))


@pytest.mark.parametrize("base, fraction", [(10000.0, 1.0), (100.0, 0.5)])
@pytest.mark.parametrize("t, cached", [(6, 0), (7, 0), (1, 0), (4, 3)])
def test_attention_equals_the_definition_of_nemo(t, cached, base, fraction):
    torch.manual_seed(t)
    attention = RotaryAttention(16, 2, rotary_fraction=fraction)
    defined = DefinedAttention(attention, base, fraction)
    x, cache, lengths = torch.randn(2, t, 16), torch.randn(2, cached, 16), torch.tensor([t, max(t - 2, 1)])
    x.requires_grad_()
    expected = torch.stack([defined.attend(a, int(n), c) for a, n, c in zip(x, lengths, cache)])

    angles = turns(cached + t, 8, rotary_width(16, 2, fraction), base, x)
    if cached:
        remembered = torch.cat([attention.linear_k(cache), attention.linear_v(cache)], dim=-1)
        state = LayerState(remembered, torch.empty(0))
        frames = Frames.of_stream(lengths, t, Context(), torch.tensor([cached, cached]), cached, t)
        output = attention(x, frames, angles, state)
    else:
        output = attention(x, Frames.of(lengths, t, Context()), angles)
    for a, b, n in zip(output, expected, lengths):
        assert_close(a[:n], b[:n], atol=ROUNDING, rtol=0)

    weights = list(attention.parameters())
    shown = [valid_sum(output, lengths), valid_sum(expected, lengths)]
    found, sought = (torch.autograd.grad(total, [x, *weights], retain_graph=True) for total in shown)
    for a, b in zip(found, sought):
        assert_close(a, b, atol=ROUNDING, rtol=1e-4)


@pytest.mark.parametrize("t", [20, 33, 4], ids="T={}".format)
def test_a_conformer_encoder_equals_the_definition_of_nemo(t):
    settings = ROPE | {"block": "conformer", "time_reduce_idx": None, "n_layers": 2, "rope_base": 500.0}
    encoder, defined = small_encoder(**settings), small_encoder(**settings)
    for layer in defined.layers:
        layer.self_attn = DefinedAttention(layer.self_attn, 500.0, 1.0)
    x, lengths = features(2, t), torch.tensor([t, max(t - 8, 1)])
    outputs = [model(x, lengths)[0] for model in (encoder, defined)]
    assert_close(valid(outputs[0], (lengths + 3) // 4), valid(outputs[1], (lengths + 3) // 4), atol=ROUNDING, rtol=0)
    for output in outputs:
        valid(output, (lengths + 3) // 4).sin().sum().backward()
    for a, b in zip(encoder.pre_encode.parameters(), defined.pre_encode.parameters()):
        assert_close(a.grad, b.grad, atol=ROUNDING, rtol=1e-4)
    for a, b in zip(encoder.layers, defined.layers):
        assert_close(a.self_attn.linear_k.weight.grad, b.self_attn.k.weight.grad, atol=ROUNDING, rtol=1e-4)
        assert_close(a.feed_forward1.linear1.weight.grad, b.feed_forward1.linear1.weight.grad, atol=ROUNDING, rtol=1e-4)


def valid_sum(x: Tensor, lengths: Tensor) -> Tensor:
    return sum((row[:n].sin().sum() for row, n in zip(x, lengths)), start=torch.zeros(()))


def test_scores_depend_only_on_the_distance():
    q, k = torch.randn(1, 1, 1, 8).expand(1, 1, 50, 8), torch.randn(1, 1, 1, 8).expand(1, 1, 50, 8)
    angles = turns(50, 8, 8, 10000.0, q)
    scores = (turned(q, angles, [4, 4]) @ turned(k, angles, [4, 4]).transpose(-2, -1))[0, 0]
    for distance in (-20, -1, 0, 3):
        diagonal = scores.diagonal(distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=ROUNDING, rtol=1e-4)
    assert (scores.diagonal(0)[0] - scores.diagonal(7)[0]).abs() > 1e-3


@pytest.mark.parametrize("d_model, n_heads, fraction, width", [(196, 4, 1.0, 48), (324, 4, 1.0, 80), (144, 4, 0.5, 18)])
def test_an_odd_head_turns_its_largest_even_part(d_model, n_heads, fraction, width):
    assert rotary_width(d_model, n_heads, fraction) == width
    x = torch.randn(1, n_heads, 5, d_model // n_heads)
    angles = turns(5, d_model // n_heads, width, 10000.0, x)
    assert_close(turned(x, angles, parts(d_model // n_heads, width))[..., width:], x[..., width:], atol=0, rtol=0)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"rotary_fraction": 0.1}, r"rotary_fraction=0.1: of the 4 values of a head .* set rotary_fraction to 0.5"),
        ({"rotary_fraction": 0.0}, "rotary_fraction=0.0: expected a number above 0, at most 1"),
        ({"rotary_fraction": 1.5}, "rotary_fraction=1.5: expected a number above 0, at most 1"),
        ({"rope_base": 1.0}, "rope_base=1.0: expected a number above 1"),
        ({"rope_base": "10000"}, "rope_base='10000': expected a number above 1"),
        ({"n_heads": 16}, "n_heads=16: rotary positions need heads of at least 2 values"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small_encoder(**ROPE, **settings)


@pytest.mark.parametrize("unet", [{"time_reduce_idx": 1}, {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]}])
def test_padding_and_other_utterances_change_nothing(unet):
    encoder = small_encoder(**ROPE, **unet)
    for length in (1, 30, 33, 64):
        alone = features(1, length)
        expected, n = encoder(alone)
        batch = features(3, 64, seed=1)
        batch[1, :, :length], batch[1, :, length:] = alone, math.nan
        output, _ = encoder(batch, torch.tensor([64, length, 50]))
        assert_close(output[1, :, : n[0]], expected[0], atol=ROUNDING, rtol=0)


def test_positions_inside_the_unet_count_the_frames_of_the_lower_rate(monkeypatch):
    """The U-Net with the positions of the full rate is a control that must differ."""
    encoder, x, seen = small_encoder(**ROPE, time_reduce_idx=1), features(1, 120), []

    def recorded(t: int, *given: Any) -> Tensor:
        seen.append(t)
        return turns(t, *given)

    def at_the_full_rate(t: int, *given: Any) -> Tensor:
        return turns(2 * t, *given)[::2] if t == 15 else turns(t, *given)

    monkeypatch.setattr(positions, "turns", recorded)
    expected = encoder(x)[0]
    assert seen == [30, 15]
    monkeypatch.setattr(positions, "turns", at_the_full_rate)
    assert (encoder(x)[0] - expected).abs().max() > 1e-3


def test_the_weights_are_the_weights_of_relative_attention_without_positions():
    relative, rotary = small_encoder(), small_encoder(**ROPE)
    missing, unexpected = rotary.load_state_dict(relative.state_dict(), strict=False)
    assert not missing and {name.rpartition("self_attn.")[2] for name in unexpected} == {
        "linear_pos.weight",
        "pos_bias_u",
        "pos_bias_v",
    }


@pytest.mark.parametrize("context", [Context(), Context(9, 4), Context(8, 0, 4), Context(-1, 0, 4)], ids=str)
def test_fused_kernels_equal_the_plain_kernel(context, monkeypatch):
    monkeypatch.setattr(fused_blocks, "QUERIES", 16)
    for t in (1, 2, 16, 61):
        operands = attention_inputs(3, t, t)
        for lengths in ([t, max(t // 2, 1), 0], [t, t, t]):
            frames = Frames.of(torch.tensor(lengths), t, context)
            expected = PlainKernel()(operands, frames, KEEP)
            for kernel in (FusedBlocks(), FusedTraining(), FusedWindows(), SDPA()):
                assert_close(kernel(operands, frames, KEEP), expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("lengths", [[9, 5, 0], [9, 9, 9]], ids=str)
def test_the_fused_gradients_are_exact(lengths):
    frames = Frames.of(torch.tensor(lengths), 9, Context())
    operands = [x.double().requires_grad_() for x in attention_inputs(3, 9, 9)[:3]]

    def attended(*given: Tensor) -> Tensor:
        return FusedTraining()(Operands(*given), frames, KEEP).tanh()

    assert torch.autograd.gradcheck(attended, operands)


def test_a_long_recording_stores_no_scores():
    """The attention of 3,000 frames stores less in training than a matrix of the scores of a single head."""
    encoder = small_encoder(**ROPE, n_layers=1, dropout=0.0, time_reduce_idx=None).train()
    stored = 0

    def pack(x: Tensor) -> Tensor:
        nonlocal stored
        stored = max(stored, x.untyped_storage().nbytes())
        return x

    t = 3000
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        encoder.encode(torch.randn(1, t, 16), torch.tensor([t]))
    assert 0 < stored < t * t  # bytes; the scores of a head are 4 * t * t bytes


def test_a_stream_remembers_keys_and_values_before_they_are_turned():
    encoder: SqueezeformerEncoder = small_encoder(**ROPE, streaming=True, att_context_size=[8, 3])
    x, state = features(1, 400), encoder.init_state(1)
    with torch.no_grad():
        whole, _ = encoder(x)
        chunks = [encoder(x[:, :, at : at + 16], None, state)[0] for at in range(0, 400, 16)]
    assert_close(torch.cat(chunks, dim=2), whole, atol=ROUNDING, rtol=0)
    assert state.layers[0].attention.shape == (1, 8, 32)  # keys and values, each of width 16
