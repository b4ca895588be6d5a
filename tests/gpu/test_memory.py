"""Tests of the memory on a GPU: it grows linearly with the number of frames T for the forms that promise it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.measuring.memory import peak_on_gpu
from tests.gpu.conftest import NEEDS_CUDA
from tests.gpu.forms import WINDOW, encoder
from tests.samples.encoders import features

# At these lengths, the matrix of all queries and all keys takes 0.5 GiB and 2 GiB for each layer, more than all other
# memory. At shorter lengths, a block of queries contains all queries.
FRAMES = (2**13, 2**14)
ALL_FRAMES: dict[str, Any] = {"n_layers": 2, "d_model": 16, "n_heads": 2, "time_reduce_idx": None, "subsampling": None}
INFERENCE: dict[str, dict[str, Any]] = {
    "rel_pos, auto": {},
    "rel_pos, blocks": {"attention": "blocks"},
    "rope, auto": {"self_attention_model": "rope"},
    "rope, sdpa": {"self_attention_model": "rope", "attention": "sdpa"},
    "local": WINDOW,
    "local, global tokens": WINDOW | {"global_tokens": 3},
}
TRAINING = {name: INFERENCE[name] for name in ("rel_pos, auto", "rope, auto", "rope, sdpa", "local")}


def growth(device: str, call: Callable[[int], Callable[[], object]]) -> float:
    """Return the peak memory for 2T frames divided by the peak memory for T frames: 2 if the memory is linear.

    On other devices than CUDA, make a short call and skip the test.
    """
    if device != "cuda":
        call(40)()
        pytest.skip(NEEDS_CUDA)
    call(FRAMES[0])()  # the first call allocates the workspaces of libraries
    short, long = (peak_on_gpu(call(t)) for t in FRAMES)
    return long / short


def inference(device: str, settings: dict[str, Any]) -> Callable[[int], Callable[[], object]]:
    built = encoder(device, ALL_FRAMES | settings)
    without_gradients = torch.no_grad()(built.forward)

    def call(t: int) -> Callable[[], object]:
        x, lengths = features(1, t).to(device), torch.tensor([t]).to(device)
        return lambda: without_gradients(x, lengths)

    return call


def training(device: str, settings: dict[str, Any]) -> Callable[[int], Callable[[], object]]:
    built = encoder(device, ALL_FRAMES | settings).train()

    def call(t: int) -> Callable[[], object]:
        x, lengths = features(1, t).to(device), torch.tensor([t]).to(device)
        return lambda: built(x, lengths)[0].sum().backward()

    return call


@pytest.mark.parametrize("settings", INFERENCE.values(), ids=INFERENCE)
def test_memory_of_inference_is_linear_in_the_length(settings, device):
    assert growth(device, inference(device, settings)) < 2.5


@pytest.mark.parametrize("settings", TRAINING.values(), ids=TRAINING)
def test_memory_of_training_is_linear_in_the_length(settings, device):
    assert growth(device, training(device, settings)) < 2.5


def test_memory_of_plain_attention_is_not_linear(device):
    assert growth(device, inference(device, {"attention": "plain"})) > 3.0
