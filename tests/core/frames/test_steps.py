"""The steps that a stream goes in, by hand and by the encoder's context; and which settings do not stream."""

from __future__ import annotations

from typing import Any

import pytest

from nemo_squeezeformer.core.frames.steps import Steps
from tests.samples.encoders import small_encoder

RC = "chunked_limited_with_rc"
NESTED = {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]}
CHUNKS = {"streaming": True, "att_context_size": [8, 3]}


def regular(left: int, right: int, **settings: Any) -> dict[str, Any]:
    return {"streaming": True, "att_context_style": "regular", "att_context_size": [left, right], **settings}


def rc(left: int, chunk: int, right: int, **settings: Any) -> dict[str, Any]:
    return {"streaming": True, "att_context_style": RC, "att_context_size": [left, chunk, right], **settings}


@pytest.mark.parametrize(
    "settings, steps",
    [
        (CHUNKS, Steps(shift=4, ahead=0, left=8)),
        (CHUNKS | NESTED, Steps(4, 0, 8)),
        (CHUNKS | {"att_context_size": [0, 0]}, Steps(1, 0, 0)),
        (CHUNKS | {"att_context_size": [[8, 3], [-1, -1]]}, Steps(4, 0, 8)),
        (rc(7, 4, 0), Steps(4, 0, 7)),
        (rc(7, 4, 0, conv_context_style="dcc"), Steps(4, 0, 7)),
        (regular(7, 0), Steps(1, 0, 7)),
        (regular(7, 0, time_reduce_idx=1), Steps(2, 0, 7)),
        (regular(7, 0, **NESTED), Steps(4, 0, 7)),
        # Two frames more in each of four layers.
        (regular(7, 2), Steps(1, 8, 7)),
        (regular(7, 0, conv_context_size=[4, 2]), Steps(1, 8, 7)),
        (regular(7, 1, conv_context_size=[5, 1]), Steps(1, 8, 7)),
        # Layers 0 and 3 take 2 each, those at half the frame rate one of their own each, a pair around.
        (regular(7, 2, time_reduce_idx=1), Steps(2, 8, 7)),
        # An odd frame to the right is none at half the rate: one each of layers 0 and 3, in whole pairs.
        (regular(7, 1, time_reduce_idx=1), Steps(2, 4, 7)),
        # 2 frames of the next chunk, which makes it the whole of that and 2 of the one after, and so on.
        (rc(6, 4, 2), Steps(4, 2 + 3 * 4, 6)),
        (rc(6, 4, 2, time_reduce_idx=1), Steps(4, 2 + 3 * 4, 6)),
        (rc(6, 1, 2), Steps(1, 8, 6)),
        # Its convolution takes a frame of the next chunk, and attention the rest of that.
        (CHUNKS | {"conv_context_size": [5, 1]}, Steps(4, 16, 8)),
    ],
)
def test_steps_are_those_of_the_context(settings, steps):
    assert Steps.of(small_encoder(**settings)) == steps


def test_chunks_that_are_given_take_the_place_of_the_contexts():
    encoder = small_encoder(time_reduce_idx=1)  # an offline model, with no limits
    assert Steps.of(encoder, chunk=8, left=16) == Steps(shift=8, ahead=0, left=16)
    assert Steps.of(encoder, chunk=8, shift=2, left=16) == Steps(2, 6, 16)
    assert Steps.of(encoder, chunk=8, shift=2, unlimited=100) == Steps(2, 6, 100)
    limited = small_encoder(**CHUNKS, time_reduce_idx=1)
    assert Steps.of(limited, chunk=2) == Steps(2, 0, 8)
    assert Steps.of(limited, unlimited=100) == Steps.of(limited, left=8) == Steps(4, 0, 8)
    assert Steps.of(limited, left=16) == Steps(4, 0, 16)


def test_the_context_may_be_unlimited_to_the_left_where_the_memory_is_not():
    encoder = small_encoder(streaming=True, att_context_size=[-1, 3])
    assert Steps.of(encoder, unlimited=100) == Steps(4, 0, 100)
    with pytest.raises(ValueError, match="needs a limit to the left"):
        Steps.of(encoder)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"chunk": 6}, "chunk_size=6 frames must be a multiple of 4, .* nearest values are 4 or 8"),
        ({"chunk": 3}, "chunk_size=3 frames .* nearest values are 4$"),
        ({"chunk": 0}, "chunk_size=0 frames .* nearest values are 4$"),
        ({"chunk": 8, "shift": 5}, "shift_size=5 frames must be a multiple of 4, .* nearest values are 4 or 8"),
        ({"chunk": 8, "shift": 12}, "shift_size=12 must not be larger than chunk_size=8"),
    ],
)
def test_given_chunks_that_the_unet_cuts_are_refused_with_the_nearest_that_it_does_not(given, words):
    encoder = small_encoder(**CHUNKS, **NESTED)
    with pytest.raises(ValueError, match=words):
        Steps.of(encoder, **given)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({}, "must see no later frames: build with streaming=True"),
        (CHUNKS | {"streaming": False, "causal_downsampling": True}, "build with streaming=True"),
        (
            {"streaming": True, "att_context_size": [-1, 3]},
            r"att_context_size=\[-1, 3\]: a stream needs a limit to the",
        ),
        (regular(8, -1), r"att_context_size=\[8, -1\]: a stream needs a limit to the right"),
        ({"streaming": True, "att_context_style": RC}, "needs a limit to the left"),
        (regular(8, 2), "grows from layer to layer to 8 frames after the chunk"),
        (CHUNKS | {"conv_context_size": [3, 3]}, "to 16 frames after the chunk"),
        (rc(8, 4, 2), "to 14 frames after the chunk"),
        (CHUNKS | {"self_attention_model": "abs_pos"}, "self_attention_model='abs_pos' does not stream"),
        (regular(8, 3, self_attention_model="rel_pos_local_attn"), "'rel_pos_local_attn' does not stream"),
        (CHUNKS | {"conv_norm_type": "instance_norm"}, "conv_norm_type='instance_norm' does not stream"),
        (CHUNKS | {"conv_norm_type": "group_norm4"}, "conv_norm_type='group_norm4' does not stream"),
    ],
)
def test_what_does_not_stream_has_no_state_and_says_why(settings, words):
    encoder = small_encoder(**settings)
    with pytest.raises(ValueError, match=words):
        encoder.init_state(1)


def test_chunks_that_the_unet_cuts_are_refused_when_built_with_the_nearest_that_it_does_not():
    with pytest.raises(ValueError, match=r"nearest sizes are \[6, 1\] or \[4, 3\] or \[8, 3\]"):
        small_encoder(streaming=True, att_context_size=[6, 2], time_reduce_idx=1)
    with pytest.raises(ValueError, match="chunk 3 must be a multiple of 4.* nearest values are 4"):
        small_encoder(**rc(6, 3, 0), **NESTED)
    for size in ([6, 1], [4, 3], [8, 3]):
        small_encoder(streaming=True, att_context_size=size, time_reduce_idx=1).init_state(1)


def test_causal_downsampling_beside_streaming_is_refused_when_built():
    with pytest.raises(ValueError, match="leave out causal_downsampling"):
        small_encoder(causal_downsampling=True, **CHUNKS)
