"""Tests of features that are NaN or infinite in a stream: only the frames that see them are affected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from tests.samples.encoders import features, small_encoder

CHUNK, LEFT, KERNEL = 4, 8, 7  # in encoder frames
ROUNDING = 1e-5

SETTINGS: dict[str, dict[str, Any]] = {
    "chunks": {},
    "regular": {"att_context_style": "regular", "att_context_size": [LEFT, 0]},
    "no left context": {"att_context_size": [0, CHUNK - 1]},
    "dcc": {"conv_context_style": "dcc"},
    "U-Net": {"time_reduce_idx": 1},
    "nested": {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]},
    "conformer": {"block": "conformer"},
    "plain": {"attention": "plain"},
    "sdpa": {"attention": "sdpa"},
    "stacking": {"subsampling": "stacking"},
}


def encoder_of(settings: dict[str, Any]) -> SqueezeformerEncoder:
    return small_encoder(**({"streaming": True, "att_context_size": [LEFT, CHUNK - 1]} | settings))


def streamed(encoder: SqueezeformerEncoder, x: Tensor, chunks: int) -> Tensor:
    """Return the output (B, D, T) of a stream that gets ``chunks`` chunks in each step."""
    state, size = encoder.init_state(x.size(0)), chunks * CHUNK * encoder.subsampling_factor
    with torch.inference_mode():
        return torch.cat([encoder(part, None, state)[0] for part in x.split(size, dim=2)], dim=2)


@pytest.mark.parametrize(
    "value", [float("nan"), *(pytest.param(sign * float("inf"), marks=pytest.mark.slow) for sign in (1, -1))]
)
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("optimized", [True, False])
def test_a_value_that_is_not_finite_affects_only_the_frames_that_see_it(settings, chunks, value, optimized):
    if settings.get("attention") == "sdpa" and chunks > 1:
        pytest.skip("an additive mask does not block a NaN")
    encoder = encoder_of(settings)
    if optimized:
        encoder.optimize_for_inference()
    f, step = encoder.subsampling_factor, chunks * CHUNK
    clean = features(2, 60 * CHUNK * f)
    broken, at = clean.clone(), (4 * CHUNK + 2)  # inside a step of three chunks, and inside a chunk
    broken[0, 3, at * f] = value
    expected, given = streamed(encoder, clean, chunks), streamed(encoder, broken, chunks)
    assert_close(given[1], expected[1], atol=ROUNDING, rtol=0)  # another stream of the batch
    first = at if "regular" in settings.values() else 4 * CHUNK
    assert_close(given[0, :, :first], expected[0, :, :first], atol=ROUNDING, rtol=0)
    assert value == -float("inf") or given[0, :, at].isnan().any()  # the output shows the error
    after = (at // step + 1) * step
    assert given[0, :, after:].isfinite().all()  # from the next step on
    reach = 4 * (LEFT + CHUNK + 4 * KERNEL)  # the left context of four layers, with the temporal U-Net
    assert_close(given[0, :, at + reach :], expected[0, :, at + reach :], atol=ROUNDING, rtol=0)


def test_the_state_of_a_stream_stays_finite():
    encoder = encoder_of({"time_reduce_idx": 1})
    state = encoder.init_state(1)
    with torch.inference_mode():
        encoder(torch.full((1, 20, CHUNK * encoder.subsampling_factor), float("nan")), None, state)
    tensors = [*state.subsampling, *(one.reduction for one in state.reductions)]
    for layer in state.layers:
        tensors += [layer.attention, layer.convolution]
    assert len(tensors) > 8 and all(x.isfinite().all() for x in tensors)
