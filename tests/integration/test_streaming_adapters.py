"""Tests of streaming with PEFT adapters. Linear adapters are exact; attention adapters need a left context of 0."""

from __future__ import annotations

from typing import Any

import pytest
from torch.testing import assert_close

from tests.samples.adapters import adapted_model, move
from tests.samples.streams import noise_features, offline, streamed


def streaming_model(names: list[str], left: int, position: str = "rel_pos", **encoder: Any) -> Any:
    encoder |= {"streaming": True, "att_context_size": [left, 3], "self_attention_model": position}
    model = adapted_model(position=position, names=names, preprocessor={"normalize": "NA"}, encoder=encoder)
    move(model)
    return model


def assert_streams(model: Any) -> None:
    utterances = noise_features([150, 61], 80)
    whole = offline(model.encoder, utterances)
    for output, expected in zip(streamed(model, utterances), whole):
        assert_close(output, expected, atol=1e-5, rtol=0)
    model.set_enabled_adapters(enabled=False)
    assert (offline(model.encoder, utterances)[0] - whole[0]).abs().max() > 1e-3  # the adapters change the output
    model.set_enabled_adapters(enabled=True)


@pytest.mark.parametrize("block", ["squeezeformer", "conformer"])
def test_linear_adapters_stream_exactly(block):
    assert_streams(streaming_model(["houlsby"], left=8, block=block))


@pytest.mark.parametrize("block", ["squeezeformer", "conformer", "mf_cf_glu"])
def test_attention_adapters_stream_exactly_without_a_left_context(block):
    assert_streams(streaming_model(["houlsby", "attention"], left=0, block=block))


def test_adapters_stream_exactly_with_rotary_positions():
    assert_streams(streaming_model(["houlsby"], left=8, position="rope"))
    assert_streams(streaming_model(["houlsby", "attention"], left=0, position="rope"))


@pytest.mark.parametrize("block", ["squeezeformer", "conformer"])
@pytest.mark.parametrize("position", ["rel_pos", "rope"])
def test_attention_adapters_are_refused_with_a_left_context(position, block):
    model = streaming_model(["houlsby", "attention"], left=8, position=position, block=block)
    with pytest.raises(ValueError, match="attention adapter 'attention' does not stream"):
        streamed(model, noise_features([150], 80))
    model.set_enabled_adapters("attention", enabled=False)
    assert streamed(model, noise_features([150], 80))[0].size(1) == 38
