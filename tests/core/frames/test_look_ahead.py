"""Tests of the look-ahead: the output of a layer depends on its chunk and on no later frames than stated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.frames.steps import Steps
from tests.samples.encoders import small_encoder

RC = "chunked_limited_with_rc"
UNCHANGED = 1e-12  # in float64: changes through many layers are above 1e-11, and rounding is below 1e-14
UNETS: dict[str, dict[str, Any]] = {
    "no U-Net": {},
    "one": {"time_reduce_idx": 1},
    "nested": {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]},
}
CHUNKED = [
    pytest.param({"att_context_size": [8, 3]}, id="chunked_limited"),
    pytest.param({"att_context_size": [0, 3], "conv_context_style": "dcc"}, id="chunked_limited, dcc"),
    pytest.param({"att_context_style": RC, "att_context_size": [7, 4, 0], "conv_context_style": "dcc"}, id="rc, dcc"),
    pytest.param({"att_context_style": RC, "att_context_size": [7, 4, 0]}, id="rc"),
]
REGULAR = {"att_context_style": "regular", "att_context_size": [7, 0]}


def layers_and_output(encoder: SqueezeformerEncoder, x: Tensor, encode: bool) -> dict[int | str, Tensor]:
    """Return (B, T, D) after each layer and at the end; ``x`` is features or, with ``encode``, subsampled features."""
    seen: dict[int | str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda module, args, output, i=i: seen.update({i: output}))
        for i, layer in enumerate(encoder.layers)
    ]
    with torch.no_grad():
        t = torch.full((x.size(0),), x.size(1))
        seen["end"] = (encoder.encode(x, t) if encode else encoder(x.transpose(1, 2), t))[0].transpose(1, 2)
    for hook in hooks:
        hook.remove()
    return seen


def first_changes(encoder: SqueezeformerEncoder, total: int, encode: bool = False) -> dict[int | str, list[int]]:
    """Return, for each layer, the first output frame that depends on each of ``total`` input frames.

    The input frames are feature frames or, with ``encode``, subsampled frames.
    """
    encoder = encoder.double()
    generator, channels = torch.Generator().manual_seed(0), 16 if encode else 20
    x, other = torch.randn(2, total, channels, dtype=torch.float64, generator=generator).split(1)
    frame = torch.arange(total)
    moved = x.repeat(total, 1, 1)
    moved[frame, frame] = other[0]  # each row of the batch changes another frame
    before, after = layers_and_output(encoder, x, encode), layers_and_output(encoder, moved, encode)
    changed = {name: (after[name] - before[name]).abs().amax(dim=-1) > UNCHANGED for name in before}
    assert all(rows.any(dim=1).all() for rows in changed.values())
    return {name: rows.int().argmax(dim=1).tolist() for name, rows in changed.items()}


def depths(encoder: SqueezeformerEncoder) -> dict[int | str, int]:
    return {i: encoder.span.depth(i) for i in range(len(encoder.layers))} | {"end": 0}


def streaming_encoder(**settings: Any) -> SqueezeformerEncoder:
    encoder = small_encoder(streaming=True, conv_kernel_size=5, **settings)
    for layer in encoder.layers:
        # Without this factor, the outermost frames of many layers have little influence.
        layer.conv.depthwise_conv.weight.data.mul_(3.0)
    return encoder


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("settings", CHUNKED)
def test_after_every_layer_a_frame_changes_its_whole_chunk_and_no_earlier_frame(settings, unet):
    """Chunks have 4 frames, and 2 or 1 frames inside the temporal U-Net."""
    encoder = streaming_encoder(**settings, **UNETS[unet])
    changes = first_changes(encoder, 24, encode=True)
    assert changes == {name: [t // 4 * (4 >> depth) for t in range(24)] for name, depth in depths(encoder).items()}


@pytest.mark.parametrize("kind, factor", [("dw_striding", 4), ("striding", 2), ("stacking", 4), (None, 1)])
@pytest.mark.parametrize("settings", CHUNKED)
def test_after_every_layer_a_feature_frame_changes_no_frame_before_its_chunk(settings, kind, factor):
    encoder = streaming_encoder(subsampling=kind, subsampling_factor=factor, **settings, **UNETS["one"])
    total = 12 * factor - factor + 1  # with convolutions, the last encoder frame begins at the last feature frame
    stacked = kind == "stacking"
    # A window of causal convolutions ends at its frame.
    holds = [t // factor if stacked else -(-t // factor) for t in range(total)]
    assert first_changes(encoder, total) == {
        name: [t // 4 * (4 >> depth) for t in holds] for name, depth in depths(encoder).items()
    }


def test_without_look_ahead_a_frame_changes_no_earlier_frame_after_every_layer():
    encoder = streaming_encoder(**REGULAR)
    assert first_changes(encoder, 16, encode=True) == {name: list(range(16)) for name in (0, 1, 2, 3, "end")}


def test_the_unet_adds_a_look_ahead_of_one_pair_of_frames_for_any_number_of_layers():
    encoder = streaming_encoder(n_layers=8, time_reduce_idx=2, time_recovery_idx=6, **REGULAR)
    inside, around = [t // 2 for t in range(16)], [t // 2 * 2 for t in range(16)]
    assert first_changes(encoder, 16, encode=True) == {
        **{i: list(range(16)) for i in (0, 1)},
        **dict.fromkeys((2, 3, 4, 5), inside),
        **dict.fromkeys((6, 7, "end"), around),
    }


@pytest.mark.parametrize(
    "spoilt, first",
    [
        ({"conv_context_size": [2, 2]}, [14, 10, 6, 2]),
        ({"att_context_style": RC, "att_context_size": [8, 4, 2]}, [12, 8, 4, 0]),
    ],
)
def test_look_ahead_that_grows_from_layer_to_layer_is_visible(spoilt, first):
    changes = first_changes(streaming_encoder(**({"att_context_size": [8, 3]} | spoilt)), 24, encode=True)
    assert [changes[i][16] for i in range(4)] == first


AHEAD = [
    pytest.param({"att_context_style": "regular", "att_context_size": [4, 2]}, id="regular"),
    pytest.param({"att_context_style": "regular", "att_context_size": [4, 1]}, id="regular, 1"),
    pytest.param({**REGULAR, "conv_context_size": [3, 1]}, id="convolution"),
    pytest.param({"att_context_style": "regular", "att_context_size": [4, 1], "conv_context_size": [2, 2]}, id="both"),
    pytest.param({"att_context_style": RC, "att_context_size": [4, 4, 4], "conv_context_style": "dcc"}, id="rc, dcc"),
    pytest.param({"att_context_style": RC, "att_context_size": [4, 8, 4]}, id="rc"),
    pytest.param({"att_context_size": [4, 3], "conv_context_size": [3, 1]}, id="chunks, convolution"),
]


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("settings", AHEAD)
def test_steps_have_exactly_the_look_ahead_that_their_frames_depend_on(settings, unet):
    encoder = streaming_encoder(**settings, **UNETS[unet])
    steps = Steps.of(encoder)
    changes = first_changes(encoder, 96, encode=True)["end"]
    factor = 2 ** encoder.span.depth()
    for step in range(0, 48, steps.shift):
        last = max(t for t, first in enumerate(changes) if first < step + steps.shift)
        ahead = last + 1 - (step + steps.shift)
        assert ahead > 0 and steps.ahead == -(-ahead // factor) * factor
