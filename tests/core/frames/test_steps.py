"""Tests of the steps of a stream, given or from the context, and of settings that do not stream."""

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
        # Each of four layers adds two frames.
        (regular(7, 2), Steps(1, 8, 7)),
        (regular(7, 0, conv_context_size=[4, 2]), Steps(1, 8, 7)),
        (regular(7, 1, conv_context_size=[5, 1]), Steps(1, 8, 7)),
        # Layers 0 and 3 add 2 frames each. Layers 1 and 2 add one frame each at half the frame rate, which is a pair.
        (regular(7, 2, time_reduce_idx=1), Steps(2, 8, 7)),
        # At half the frame rate, 1 frame to the right becomes 0. Layers 0 and 3 add 1 frame each; pairs stay whole.
        (regular(7, 1, time_reduce_idx=1), Steps(2, 4, 7)),
        # A layer sees 2 frames of the next chunk, so the layer before needs the whole chunk and 2 more frames.
        (rc(6, 4, 2), Steps(4, 2 + 3 * 4, 6)),
        (rc(6, 4, 2, time_reduce_idx=1), Steps(4, 2 + 3 * 4, 6)),
        (rc(6, 1, 2), Steps(1, 8, 6)),
        # The convolution sees a frame of the next chunk, and attention needs the rest of that chunk.
        (CHUNKS | {"conv_context_size": [5, 1]}, Steps(4, 16, 8)),
    ],
)
def test_steps_follow_from_the_context(settings, steps):
    assert Steps.of(small_encoder(**settings)) == steps


def test_given_chunks_replace_the_chunks_of_the_context():
    encoder = small_encoder(time_reduce_idx=1)  # an offline model with unlimited context
    assert Steps.of(encoder, chunk=8, left=16) == Steps(shift=8, ahead=0, left=16)
    assert Steps.of(encoder, chunk=8, shift=2, left=16) == Steps(2, 6, 16)
    assert Steps.of(encoder, chunk=8, shift=2, unlimited=100) == Steps(2, 6, 100)
    limited = small_encoder(**CHUNKS, time_reduce_idx=1)
    assert Steps.of(limited, chunk=2) == Steps(2, 0, 8)
    assert Steps.of(limited, unlimited=100) == Steps.of(limited, left=8) == Steps(4, 0, 8)
    assert Steps.of(limited, left=16) == Steps(4, 0, 16)


def test_an_unlimited_left_context_needs_a_limit_for_the_memory():
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
def test_given_chunks_that_the_unet_cuts_are_refused_and_the_error_names_the_nearest_values(given, words):
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
def test_encoders_that_cannot_stream_refuse_to_make_a_state(settings, words):
    encoder = small_encoder(**settings)
    with pytest.raises(ValueError, match=words):
        encoder.init_state(1)


def test_the_constructor_refuses_chunks_that_the_unet_cuts_and_names_the_nearest_sizes():
    with pytest.raises(ValueError, match=r"nearest sizes are \[6, 1\] or \[4, 3\] or \[8, 3\]"):
        small_encoder(streaming=True, att_context_size=[6, 2], time_reduce_idx=1)
    with pytest.raises(ValueError, match="chunk 3 must be a multiple of 4.* nearest values are 4"):
        small_encoder(**rc(6, 3, 0), **NESTED)
    for size in ([6, 1], [4, 3], [8, 3]):
        small_encoder(streaming=True, att_context_size=size, time_reduce_idx=1).init_state(1)


def test_the_constructor_refuses_causal_downsampling_with_streaming():
    with pytest.raises(ValueError, match="leave out causal_downsampling"):
        small_encoder(causal_downsampling=True, **CHUNKS)
