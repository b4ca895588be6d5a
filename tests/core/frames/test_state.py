"""Tests of streaming: chunks give the same output as the whole utterance, and the state does not grow."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.frames.initial_state import empty_state
from nemo_squeezeformer.core.frames.state import EncoderState
from nemo_squeezeformer.core.frames.steps import Steps
from tests.samples.encoders import features, small_encoder

ROUNDING = 1e-5  # float32 sums with other numbers of terms, over four layers
RC = "chunked_limited_with_rc"

STYLES: dict[str, dict[str, Any]] = {
    "chunked_limited": {},
    "chunked_limited, dcc": {"conv_context_style": "dcc"},
    "rc": {"att_context_style": RC},
    "rc, dcc": {"att_context_style": RC, "conv_context_style": "dcc"},
    "regular": {"att_context_style": "regular"},
}
UNETS: dict[str, dict[str, Any]] = {
    "no U-Net": {},
    "one": {"time_reduce_idx": 1},
    "nested": {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]},
    "several": {"time_reduce_idx": [0, 2], "time_recovery_idx": [1, 3]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "2x": {"subsampling_factor": 2},
    "8x": {"subsampling_factor": 8},
    "16x": {"subsampling_factor": 16},
    "striding": {"subsampling": "striding"},
    "stacking": {"subsampling": "stacking"},
    "stacking_norm": {"subsampling": "stacking_norm", "subsampling_factor": 8},
    "no subsampling": {"subsampling": None},
    "conformer": {"block": "conformer"},
    "mf_cf_glu": {"block": "mf_cf_glu"},
    "mf_cf": {"block": "mf_cf"},
    "layer_norm": {"conv_norm_type": "layer_norm"},
    "fused_batch_norm": {"conv_norm_type": "fused_batch_norm"},
    "kernel of 1": {"conv_kernel_size": 1},
    "kernel of 31": {"conv_kernel_size": 31},
    "no biases": {"use_bias": False, "adaptive_scale": False},
    "tied position biases": {"untie_biases": False, "n_heads": 2},
    "projected": {"feat_out": 8, "xscaling": False},
    "sdpa": {"use_pytorch_sdpa": True},
    "checkpointed": {"gradient_checkpointing": True},
    "rope without biases": {"self_attention_model": "rope", "use_bias": False},
}


def streaming_encoder(chunk: int, left: int, **settings: Any) -> SqueezeformerEncoder:
    """Return an encoder with chunks of ``chunk`` frames that see ``left`` frames before them."""
    style = settings.get("att_context_style", "chunked_limited")
    size = {"regular": [left, 0], "chunked_limited": [left, chunk - 1], RC: [left, chunk, 0]}[style]
    return small_encoder(streaming=True, att_context_size=size, **settings)


def in_chunks(
    encoder: SqueezeformerEncoder, x: Tensor, lengths: Tensor, frames: int, state: EncoderState
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the outputs of ``encoder`` for features (B, F, T), with ``frames`` encoder frames in each step."""
    size = frames * encoder.subsampling_factor
    for at in range(0, x.size(2), size):
        part = x[:, :, at : at + size]
        with torch.no_grad():
            yield encoder(part, (lengths - at).clamp(0, part.size(2)), state)


def joined(outputs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return (T, D) for each stream: the concatenated valid frames of its chunks."""
    return [torch.cat([x[row, :, : n[row]].T for x, n in outputs]) for row in range(outputs[0][0].size(0))]


def streamed(encoder: SqueezeformerEncoder, x: Tensor, lengths: Tensor, frames: int) -> list[Tensor]:
    return joined(list(in_chunks(encoder, x, lengths, frames, encoder.init_state(x.size(0)))))


def whole(encoder: SqueezeformerEncoder, x: Tensor, lengths: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return joined([encoder(x, lengths)])


def unequal(encoder: SqueezeformerEncoder, chunk: int) -> tuple[Tensor, Tensor]:
    """Return features of five streams.

    They have an odd and an even number of frames, whole chunks, less than a chunk, and a single frame.
    """
    f = encoder.subsampling_factor
    lengths = torch.tensor([(3 * chunk + 1) * f - 1, (2 * chunk + 2) * f, 2 * chunk * f, chunk * f - 1, 1])
    lengths = lengths.clamp(min=1)
    x = features(5, int(lengths.max()))
    x[torch.arange(x.size(2)) >= lengths[:, None, None].expand_as(x)] = float("nan")
    return x, lengths


def assert_chunks_equal_the_whole(encoder: SqueezeformerEncoder, chunk: int) -> None:
    x, lengths = unequal(encoder, chunk)
    expected = whole(encoder, x, lengths)
    assert expected[0].std() > 0.3  # the output is not trivial
    for stream, alone in zip(streamed(encoder, x, lengths, chunk), expected, strict=True):
        assert_close(stream, alone, atol=ROUNDING, rtol=0)


def sizes(style: str, unet: str) -> list[tuple[int, int]]:
    """Return pairs of a chunk and a left context: 0, one or several chunks, and other numbers if the style allows."""
    least = {"no U-Net": 1, "nested": 4}.get(unet, 2)
    pairs = [(least, 0), (least, 5 * least), (4, 4), (8, 16), (12, 12), (32, 0), (32, 32)]
    if not style.startswith("chunked_limited"):
        pairs += [(4, 7), (8, 5), (12, 1), (16, 37)]
    return pairs


@pytest.mark.parametrize(
    "unet, positions",
    [
        pytest.param(unet, positions, marks=pytest.mark.slow if positions == "rope" and unet != "nested" else ())
        for unet in UNETS
        for positions in ("rel_pos", "rope")
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_chunks_equal_the_whole_utterance_in_every_style_and_temporal_unet(style, unet, positions):
    settings = STYLES[style] | UNETS[unet] | {"self_attention_model": positions}
    for chunk, left in sizes(style, unet):
        assert_chunks_equal_the_whole(streaming_encoder(chunk, left, **settings), chunk)


@pytest.mark.parametrize("other", OTHERS)
def test_chunks_equal_the_whole_utterance_with_every_other_setting(other):
    for chunk, left in ((2, 4), (6, 6)):
        assert_chunks_equal_the_whole(streaming_encoder(chunk, left, **UNETS["one"], **OTHERS[other]), chunk)


@pytest.mark.parametrize("style", STYLES)
def test_several_chunks_in_one_call_equal_single_chunks(style):
    encoder = streaming_encoder(4, 8, **STYLES[style], **UNETS["one"])
    x, lengths = unequal(encoder, 16)
    one_at_a_time = streamed(encoder, x, lengths, 4)
    for frames in (8, 12, 64):
        for several, one in zip(streamed(encoder, x, lengths, frames), one_at_a_time):
            assert_close(several, one, atol=ROUNDING, rtol=0)


def test_lengths_of_chunks_add_up_to_the_length_of_the_whole_utterance():
    encoder = streaming_encoder(4, 8, **UNETS["one"])
    for total in range(1, 40):
        x, lengths = features(1, total), torch.tensor([total])
        chunks = in_chunks(encoder, x, lengths, 4, encoder.init_state(1))
        assert sum(int(n) for _, n in chunks) == -(-total // 4) == encoder(x, lengths)[1]


@pytest.mark.parametrize("style", STYLES)
def test_chunks_without_their_state_differ_from_the_whole_utterance(style):
    encoder = streaming_encoder(4, 8, **STYLES[style], **UNETS["one"])
    x, lengths = features(1, 64), torch.tensor([64])
    forgetful = [encoder(part, None, encoder.init_state(1)) for part in x.split(16, dim=2)]
    difference = joined(forgetful)[0] - whole(encoder, x, lengths)[0]
    assert difference[:4].abs().max() < ROUNDING and difference[4:].abs().max() > 0.01


def tensors(state: EncoderState) -> list[Tensor]:
    layers = [tensor for layer in state.layers for tensor in (layer.attention, layer.convolution)]
    return [*state.subsampling, *(reduction.reduction for reduction in state.reductions), *layers, state.cached]


@pytest.mark.parametrize("style", STYLES)
def test_setting_a_row_of_the_state_to_zero_starts_a_new_stream_in_that_row(style):
    encoder = streaming_encoder(4, 8, **STYLES[style], **UNETS["nested"])
    long, first, second = features(1, 160, seed=1), features(1, 80, seed=2), features(1, 80, seed=3)
    second[:] += 1.0
    x = torch.cat([long, torch.cat([first, second], dim=2)])
    state, outputs = encoder.init_state(2), []
    for step, part in enumerate(x.split(16, dim=2)):
        if step == 5:
            for tensor in tensors(state):
                tensor[1] = 0
        outputs.append(encoder(part, None, state))
    expected = [whole(encoder, one, torch.tensor([one.size(2)]))[0] for one in (long, first, second)]
    for stream, alone in zip(joined(outputs), (expected[0], torch.cat(expected[1:]))):
        assert_close(stream, alone, atol=ROUNDING, rtol=0)
    assert state.cached.tolist() == [8, 8]


def test_a_row_that_is_not_set_to_zero_continues_the_previous_stream():
    encoder = streaming_encoder(4, 8, **UNETS["one"])
    first, second = features(1, 80, seed=2), features(1, 80, seed=3)
    on = streamed(encoder, torch.cat([first, second], dim=2), torch.tensor([160]), 4)[0]
    assert (on[20:] - whole(encoder, second, torch.tensor([80]))[0]).abs().max() > 0.01


def test_a_finished_stream_full_of_nan_does_not_change_other_streams():
    encoder = streaming_encoder(4, 8, **UNETS["one"])
    x = features(2, 96)
    expected = whole(encoder, x[:1], torch.tensor([96]))[0]
    state, outputs = encoder.init_state(2), []
    for step, part in enumerate(x.split(16, dim=2)):
        lengths = torch.tensor([16, 16])
        if step >= 2:
            part, lengths = part.clone(), torch.tensor([16, 0])
            part[1] = float("nan")
            for tensor in tensors(state)[:-1]:
                tensor[1] = float("nan")
        outputs.append(encoder(part, lengths, state))
    assert_close(torch.cat([output[0].T for output, _ in outputs]), expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("style", ["chunked_limited", "rc, dcc"])
def test_the_streaming_state_never_grows(style):
    encoder = streaming_encoder(4, 8, **STYLES[style], **UNETS["one"])
    state, shapes, kept = encoder.init_state(2), [], []
    for _ in range(200):
        encoder(features(2, 16), None, state)
        shapes.append([tensor.shape for tensor in tensors(state)])
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors(state)))
    assert all(shape == [tensor.shape for tensor in tensors(encoder.init_state(2))] for shape in shapes)
    assert set(kept) == {kept[0]}
    assert state.cached.tolist() == [8, 8]


def test_a_saved_state_continues_bit_for_bit_in_another_process(tmp_path):
    encoder = streaming_encoder(4, 8, **UNETS["one"])
    parts = features(2, 160).split(16, dim=2)
    state = encoder.init_state(2)
    with torch.no_grad():
        for part in parts[:5]:
            encoder(part, None, state)
        torch.save((encoder, state, parts[5:]), tmp_path / "stream.pt")
        expected = [encoder(part, None, state)[0] for part in parts[5:]]
    program = (
        "import sys, torch\n"
        "encoder, state, parts = torch.load(sys.argv[1], weights_only=False)\n"
        "with torch.no_grad(): torch.save([encoder(part, None, state)[0] for part in parts], sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "stream.pt"], check=True)
    for output, here in zip(torch.load(tmp_path / "stream.pt"), expected, strict=True):
        assert_close(output, here, atol=0, rtol=0)


AHEAD = [
    pytest.param({"att_context_style": "regular", "att_context_size": [9, 2]}, id="regular"),
    pytest.param({"att_context_style": "regular", "att_context_size": [9, 0], "conv_context_size": [4, 2]}, id="conv"),
    pytest.param({"att_context_style": RC, "att_context_size": [6, 4, 4], "conv_context_style": "dcc"}, id="rc, dcc"),
    pytest.param({"att_context_style": RC, "att_context_size": [6, 4, 4]}, id="rc"),
]


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("settings", AHEAD)
def test_chunks_with_look_ahead_equal_the_whole_utterance_if_they_overlap(settings, unet):
    encoder = small_encoder(streaming=True, **settings, **UNETS[unet])
    steps = Steps.of(encoder)
    assert steps.ahead > 0
    for total in (1, 3 * steps.shift, 3 * steps.shift + steps.ahead + 1):
        x, state = torch.randn(2, total, 16), empty_state(encoder, 2, steps.left)
        state.advance, outputs = steps.shift, []
        with torch.no_grad():
            for at in range(0, total, steps.shift):
                part = x[:, at : at + steps.shift + steps.ahead]
                lengths = torch.full((2,), part.size(1))
                outputs.append(encoder.encode(part, lengths, state)[0][:, :, : steps.shift])
            expected, _ = encoder.encode(x, torch.full((2,), total))
        assert_close(torch.cat(outputs, dim=2), expected, atol=ROUNDING, rtol=0)


def test_compiled_layers_stream_with_the_same_outputs_and_one_graph(monkeypatch):
    monkeypatch.setattr("nemo_squeezeformer.core.layer_call.BACKEND", "eager")
    plain, compiled = (streaming_encoder(4, 8, compile=compile) for compile in (False, True))
    x, lengths = features(2, 96), torch.tensor([96, 70])
    torch._dynamo.reset()
    counters.clear()
    for output, expected in zip(streamed(compiled, x, lengths, 4), streamed(plain, x, lengths, 4)):
        assert_close(output, expected, atol=ROUNDING, rtol=0)
    assert counters["stats"]["unique_graphs"] == 1  # later steps compile no further graph


def test_checkpointing_does_not_change_the_gradients_of_streaming_steps():
    gradients = []
    for checkpointing in (False, True):
        encoder = streaming_encoder(4, 8, gradient_checkpointing=checkpointing, **UNETS["one"]).train()
        state, loss = encoder.init_state(2), torch.zeros(())
        for part in features(2, 48).split(16, dim=2):
            loss = loss + encoder(part, None, state)[0].square().sum()
        loss.backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    for got, expected in zip(*gradients, strict=True):
        assert_close(got, expected)


def test_bfloat16_weights_and_autocast_stream_within_their_precision():
    encoder = streaming_encoder(4, 8, **UNETS["one"])
    x, lengths = features(2, 96), torch.tensor([96, 77])
    expected = whole(encoder, x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = streamed(encoder, x, lengths, 4)
    pure = streamed(encoder.bfloat16(), x.bfloat16(), lengths, 4)
    assert encoder.init_state(1).layers[0].attention.dtype == pure[0].dtype == torch.bfloat16
    for output, reference in itertools.chain(zip(mixed, expected), zip(pure, expected)):
        # bfloat16 has 2.4 decimal digits, over four layers of sums.
        assert_close(output.float(), reference, atol=0.25, rtol=0)
