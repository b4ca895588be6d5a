"""Tests of ``compile=True``: compiled layers give the results of normal layers, in inference, training and streams.

On a CPU, a fast backend replaces the compiler, which takes minutes there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.gpu.conftest import NEEDS_CUDA
from tests.gpu.forms import batch, encoder
from tests.gpu.test_attention import EXACT, error, result
from tests.gpu.test_streaming import STEP, STREAMING_MODELS, STYLES

SETTINGS: dict[str, dict[str, Any]] = {model: {"self_attention_model": model} for model in STREAMING_MODELS}


@pytest.fixture(autouse=True)
def compiler(device: str, request: pytest.FixtureRequest) -> None:
    """Use the compiler on CUDA, which needs Triton."""
    if device == "standin":
        pytest.skip(NEEDS_CUDA)
    if device == "cpu":
        request.getfixturevalue("quick_compiler")
    else:
        pytest.importorskip("triton")
        torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_compiled_layers_equal_normal_layers(settings, training, device):
    small = settings | {"n_layers": 2}
    expected = result(device, small, training)
    errors = error(result(device, small | {"compile": True}, training), expected)
    assert {name: value for name, value in errors.items() if not value <= EXACT} == {}


@pytest.mark.slow
@pytest.mark.parametrize("model", STREAMING_MODELS)
def test_compiled_steps_of_a_stream_equal_normal_steps(model, device):
    settings = STYLES["chunks"] | {"streaming": True, "self_attention_model": model, "n_layers": 2}
    plain, compiled = encoder(device, settings), encoder(device, settings, compile=True)
    x, lengths = batch(device, (3 * STEP, 2 * STEP))
    states = plain.init_state(2), compiled.init_state(2)
    for first in range(0, x.size(2), STEP):
        given = x[..., first : first + STEP], (lengths - first).clamp(0, STEP)
        with torch.no_grad():
            (expected, valid), (found, _) = plain(*given, states[0]), compiled(*given, states[1])
        for row, n in enumerate(valid.tolist()):
            assert_close(found[row, :, :n], expected[row, :, :n], atol=1e-4, rtol=0)
