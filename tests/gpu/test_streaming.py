"""Tests of streams on a device: chunks equal the whole utterance, and the host does not wait for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nemo_squeezeformer.core.frames.steps import check
from tests.gpu.forms import CASES, EACH_CASE, FULL_MODELS, batch, encoder

STYLES: dict[str, dict[str, Any]] = {
    "chunks": {"att_context_size": [16, 7]},
    "dcc": {
        "att_context_size": [13, 8, 0],
        "att_context_style": "chunked_limited_with_rc",
        "conv_context_style": "dcc",
    },
    "regular": {"att_context_size": [13, 0], "att_context_style": "regular"},
}
STEP = 32  # feature frames of a step, 8 encoder frames
ROUNDING = 1e-4  # float32 sums with other numbers of terms, on another device


def streams(model: str) -> bool:
    try:
        check(encoder("cpu", {"self_attention_model": model, "streaming": True, "att_context_size": [16, 7]}))
    except ValueError:
        return False
    return True


STREAMING_MODELS = [model for model in FULL_MODELS if streams(model)]
EACH = pytest.mark.parametrize("optimized", [False, True], ids=["", "optimized"])


def streaming_encoder(device: str, model: str, style: str, optimized: bool) -> Any:
    settings = STYLES[style] | {"streaming": True, "self_attention_model": model}
    built = encoder(device, settings)
    return built.optimize_for_inference() if optimized else built


@EACH
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model", STREAMING_MODELS)
def test_chunks_equal_the_whole_utterance_on_the_cpu(model, style, optimized, device):
    x, lengths = batch("cpu")
    with torch.no_grad():
        expected, valid = streaming_encoder("cpu", model, style, False)(x, lengths)
        streaming, chunks = streaming_encoder(device, model, style, optimized), []
        state = streaming.init_state(3)
        for first in range(0, x.size(2), STEP):
            part = x[:, :, first : first + STEP]
            own = (lengths - first).clamp(0, part.size(2))
            chunks.append(streaming(part.to(device), own.to(device), state))
    assert expected.std() > 0.3 and sum(n.to("cpu") for _, n in chunks).tolist() == valid.tolist()
    streamed = torch.cat([y.to("cpu") for y, _ in chunks], dim=2)
    for row, n in enumerate(valid.tolist()):
        torch.testing.assert_close(streamed[row, :, :n], expected[row, :, :n], atol=ROUNDING, rtol=0)


@EACH
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model", STREAMING_MODELS)
def test_no_step_of_a_stream_waits_for_the_device(model, style, optimized, device, without_waiting):
    streaming = streaming_encoder(device, model, style, optimized)
    x, lengths = batch(device, (STEP, 5))
    with torch.no_grad(), without_waiting():
        state = streaming.init_state(2)
        for given in (lengths, None, lengths):
            streaming(x, given, state)


@EACH_CASE
def test_inference_does_not_wait_for_the_device(case, device, without_waiting):
    for built in (encoder(device, CASES[case][0]), encoder(device, CASES[case][0]).optimize_for_inference()):
        x, lengths = batch(device)
        with torch.no_grad(), without_waiting():
            built(x, lengths)
            built(x)


@EACH_CASE
def test_a_training_step_does_not_wait_for_the_device(case, device, without_waiting):
    built, (x, lengths) = encoder(device, CASES[case][0], stochastic_depth_drop_prob=0.5).train(), batch(device)
    with without_waiting():
        y, _ = built(x, lengths)
        y.sum().backward()


def test_a_read_of_a_value_is_found(device, without_waiting):
    x = torch.ones(3).to(device)
    for read in (lambda: x.sum().item(), lambda: torch.tensor([1, 2], device=device), lambda: x.to("cpu")):
        with pytest.raises((RuntimeError, AssertionError)), without_waiting():
            read()
