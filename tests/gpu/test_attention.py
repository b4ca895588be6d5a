"""Tests that every form of attention equals plain attention in float32 on the CPU, in inference and in training."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.gpu.conftest import NEEDS_CUDA
from tests.gpu.forms import CASES, EACH_CASE, MASKS, batch, encoder

EXACT = 5e-4  # relative error of float32 sums in another order, over three layers and their gradients
# In a low precision, the error of a form may be larger than the error of plain attention by these factors. Gradients
# that nearly cancel have errors of chance, which differ between processors: the mean error was 1.10 times as large on
# one processor, and 1.25 times on another. In single gradients, PyTorch's fused kernel for CPUs loses 5 times as much.
OUTPUT, MEAN, EACH, CHANCE = 1.25, 1.4, 6.0, 0.05
LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
Result = dict[str, Tensor]


def result(device: str, settings: dict[str, Any], training: bool, precision: str = "float32") -> Result:
    """Return the output of the valid frames, in training with the gradients of a random projection of the output."""
    given, (x, lengths) = encoder(device, settings).train(training), batch(device)
    x.requires_grad_(training)
    low = LOW.get(precision)
    with torch.set_grad_enabled(training), torch.autocast(device, low or torch.bfloat16, enabled=low is not None):
        y, lengths = given(x, lengths)
    valid = (torch.arange(y.size(2), device=y.device) < lengths[:, None])[:, None]
    y = torch.where(valid, y.float(), torch.zeros_like(y, dtype=torch.float32))
    found = {"output": y.detach().to("cpu")}
    if training:
        directions = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device)
        (y * directions).sum().backward()
        gradients = {name: weight.grad for name, weight in given.named_parameters()} | {"features": x.grad}
        found |= {f"gradient of {name}": x.to("cpu") for name, x in gradients.items() if x is not None}
    return found


@cache
def reference(case: str, training: bool, device: str = "cpu", precision: str = "float32") -> Result:
    """Return the result of plain attention, or of local attention with tokens, which has no plain form."""
    return result(device, CASES[case][1], training, precision)


def error(found: Result, expected: Result) -> dict[str, float]:
    """Return the relative error of each tensor.

    A gradient that is zero up to rounding is compared with the gradients of all weights.
    """
    assert found.keys() == expected.keys()
    whole = max(float(x.norm()) for x in expected.values())
    return {
        name: float((x - expected[name]).norm() / (expected[name].norm() + 1e-2 * whole)) for name, x in found.items()
    }


def mean(errors: dict[str, float]) -> float:
    return (sum(value**2 for value in errors.values()) / len(errors)) ** 0.5


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@EACH_CASE
def test_every_form_equals_plain_attention_on_the_cpu(case, training, device):
    expected = reference(case, training)
    assert expected["output"].std() > 0.3  # the output is not trivial
    errors = error(result(device, CASES[case][0], training), expected)
    assert {name: value for name, value in errors.items() if not value <= EXACT} == {}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("precision", LOW)
@EACH_CASE
def test_every_form_loses_no_more_in_low_precision_than_plain_attention(case, precision, training, device):
    if device == "standin" or (device == "cpu" and precision == "float16"):
        pytest.skip(NEEDS_CUDA)
    exact = reference(case, training)
    lost = error(reference(case, training, device, precision), exact)
    assert 1e-4 < lost["output"] < 0.1  # the precision is low
    errors = error(result(device, CASES[case][0], training, precision), exact)
    assert errors["output"] <= OUTPUT * lost["output"] and mean(errors) <= MEAN * mean(lost)
    assert {name: value for name, value in errors.items() if not value <= EACH * lost[name] + CHANCE} == {}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_another_window_is_found(training, device):
    narrow = {"att_context_size": [12, 8], "attention": "plain"}
    expected = result(device, MASKS["window"] | {"attention": "plain"}, training)
    assert error(result(device, narrow, training), expected)["output"] > 10 * EXACT
