"""Tests that the latencies and the memory in docs/stream.md agree with the recipes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from nemo.core.classes import Serialization
from omegaconf import OmegaConf

from nemo_squeezeformer.training.recipes import compose, recipes
from tests.samples.paths import ROOT

PAGE = (ROOT / "docs" / "stream.md").read_text(encoding="utf-8")
STREAMING = [name for name in recipes() if name.endswith("_streaming")]


def streaming_encoder(size: str, rate: str, *overrides: str) -> Any:
    """Return the encoder of a recipe on the meta device, without weights."""
    name = "squeezeformer_hybrid_transducer_ctc_char_streaming"
    config = compose(name, [f"size={size}", f"rate={rate}", *overrides])
    with torch.device("meta"):
        return Serialization.from_config_dict(OmegaConf.to_container(config.model, resolve=True)["encoder"])


@pytest.mark.parametrize("size", ["xs", "s", "sm", "m", "ml", "l"])
def test_a_stream_needs_the_memory_that_the_page_states(size):
    said = re.search(rf"^\| {size} \| ([\d.]+) MB \| ([\d.]+) MB \|$", PAGE, flags=re.MULTILINE)
    for rate, megabytes in zip(("4x", "8x"), said.groups()):
        caches = streaming_encoder(size, rate).get_initial_cache_state(batch_size=1, device=torch.device("cpu"))
        assert round((caches[0].nbytes + caches[1].nbytes) / 1e6, 2) == float(megabytes)


@pytest.mark.parametrize("rate, column, stride", [("4x", 0, 40), ("8x", 2, 80)])
def test_the_latencies_of_the_page_agree_with_the_recipes(rate, column, stride):
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| `\[-?\d", line)]
    said = [(row[column], row[column + 1]) for row in rows if len(row) > column]
    sizes = streaming_encoder("tiny", rate).att_context_size_all
    promised = [f"{stride * (right + 1)} ms" if right >= 0 else "offline" for _, right in sizes]
    assert [latency for _, latency in said] == promised
    assert all(f"`{size}`" in cell for size, (cell, _) in zip(sizes, said))


def test_the_example_latencies_of_the_page_can_be_trained():
    override = re.search(r"`(stream\.att_context_size=\S+)`", PAGE).group(1)
    assert streaming_encoder("tiny", "4x", override).att_context_size_all == [[144, 23], [144, 7]]


@pytest.mark.parametrize("name", STREAMING)
def test_features_are_not_normalized_over_the_utterance(name):
    config = compose(name)
    assert config.model.preprocessor.normalize == "NA" and config.model.encoder.streaming
    for size in OmegaConf.to_container(config.model.encoder, resolve=True)["att_context_size"]:
        assert size == [-1, -1] or (size[1] + 1) % 2 == 0


def test_there_are_streaming_recipes_for_ctc_transducer_and_hybrid():
    assert len(STREAMING) == 4
    assert {compose(name).model_target.split(".")[-1] for name in STREAMING} == {
        "EncDecCTCModelBPE",
        "EncDecRNNTBPEModel",
        "EncDecHybridRNNTCTCBPEModel",
        "EncDecHybridRNNTCTCModel",
    }
