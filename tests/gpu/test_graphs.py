"""Tests of calls that a CUDA graph records: replays give the results of normal calls, for new values of the inputs.

On other devices, the same calls run without a graph.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.gpu.forms import CASES, EACH_CASE, batch, encoder
from tests.gpu.repeated import Repeated, tensors
from tests.gpu.test_streaming import EACH, STEP, STREAMING_MODELS, STYLES, streaming_encoder

# Eager calls and replayed calls run the same kernels. cuBLAS may choose another algorithm while a graph is recorded.
ROUNDING: dict[torch.dtype | None, float] = {None: 1e-4, torch.bfloat16: 0.1}
PRECISIONS = pytest.mark.parametrize(
    "precision", [None, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=["float32", "bfloat16"]
)


def eager(encoder: Any, device: str, precision: torch.dtype | None, *given: Any) -> Any:
    with torch.no_grad(), torch.autocast(device, precision or torch.bfloat16, enabled=precision is not None):
        return encoder(*given)


@PRECISIONS
@EACH
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model", STREAMING_MODELS)
def test_replayed_steps_of_a_stream_equal_normal_steps(model, style, optimized, precision, device):
    streaming = streaming_encoder(device, model, style, optimized)
    x, lengths = batch(device, (6 * STEP, 4 * STEP))
    state = streaming.init_state(2)
    step = Repeated(streaming, x[..., :STEP], lengths.clamp(max=STEP), streams=True, precision=precision)
    places = [tensor.data_ptr() for tensor in tensors(step.state)]
    for first in range(0, x.size(2), STEP):
        part, own = x[..., first : first + STEP], (lengths - first).clamp(0, STEP)
        expected, valid = eager(streaming, device, precision, part, own, state)
        step.x.copy_(part)
        step.lengths.copy_(own)
        step.again()
        assert step.valid.tolist() == valid.tolist()
        for row, n in enumerate(valid.tolist()):
            assert_close(step.y[row, :, :n], expected[row, :, :n], atol=ROUNDING[precision], rtol=0)
    assert [tensor.data_ptr() for tensor in tensors(step.state)] == places


@PRECISIONS
@EACH_CASE
def test_replayed_inference_of_one_utterance_equals_normal_inference(case, precision, device):
    for built in (encoder(device, CASES[case][0]), encoder(device, CASES[case][0]).optimize_for_inference()):
        x, lengths = batch(device, (203,))
        call = Repeated(built, torch.zeros_like(x), lengths, precision=precision)
        for length in (203, 90):
            expected, valid = eager(built, device, precision, x, lengths * 0 + length)
            call.x.copy_(x)
            call.lengths.fill_(length)
            call.again()
            n = int(valid[0])
            assert call.valid.tolist() == [n] and expected.std() > 0.3
            assert_close(call.y[..., :n], expected[..., :n], atol=ROUNDING[precision], rtol=0)
