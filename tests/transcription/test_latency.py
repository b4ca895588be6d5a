"""The latency of every att_context_size is known without setting it, for this encoder and for NeMo's encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("nemo.collections.asr")

from nemo.collections.asr.modules import ConformerEncoder

from nemo_squeezeformer.integration.latency import Chunks, empty_caches
from nemo_squeezeformer.transcription.live.streams import latencies, latency
from tests.samples.asr_models import asr_model

SIZES = [[16, 7], [16, 3], [16, -1]]
CONFORMER = {"feat_in": 80, "n_layers": 2, "d_model": 16, "n_heads": 4, "subsampling_factor": 4}


def ours(**settings: Any) -> Any:
    return asr_model(encoder={"streaming": True, **settings}, preprocessor={"normalize": "NA"})


def conformers(**settings: Any) -> Any:
    model = ours(att_context_size=[[16, 7]])
    model.encoder = ConformerEncoder(**CONFORMER, causal_downsampling=True, conv_context_size="causal", **settings)
    return model.eval()


MODELS = {
    "ours": lambda: ours(att_context_size=SIZES),
    "ours with look-ahead": lambda: ours(att_context_style="regular", att_context_size=[[16, 2], [16, 0]]),
    "NeMo's": lambda: conformers(att_context_style="chunked_limited", att_context_size=SIZES[:2]),
    "NeMo's with look-ahead": lambda: conformers(att_context_style="regular", att_context_size=[[16, 2], [16, 0]]),
}


def settings_of(encoder: Any) -> Any:
    layers = [getattr(module, "cache_drop_size", None) for module in encoder.layers.modules()]
    return encoder.att_context_size, str(encoder.streaming_cfg), layers


@pytest.mark.parametrize("name", MODELS)
def test_latencies_equal_the_latency_after_setting_each_size_and_change_no_setting(name):
    model = MODELS[name]()
    encoder = model.encoder
    before, found = settings_of(encoder), latencies(model)
    caches = {size: empty_caches(encoder, 3, size) for size in found}
    assert settings_of(encoder) == before and len(found) == 2
    for size, ms in found.items():
        encoder.set_default_att_context_size(list(size))
        encoder.setup_streaming_params()
        config = encoder.streaming_cfg
        chunk, shift = (each if isinstance(each, int) else each[1] for each in (config.chunk_size, config.shift_size))
        assert latency(model) == latency(model, size) == ms == 10 * chunk
        assert Chunks.of(encoder, size) == Chunks.of(encoder) == (chunk, shift, config.last_channel_cache_size)
        for cache, expected in zip(caches[size], encoder.get_initial_cache_state(batch_size=3)):
            assert torch.equal(cache, expected)
    if name.startswith("ours"):
        assert len(set(found.values())) == 2


def test_latency_uses_the_chunk_size_that_a_program_has_set():
    model = ours(att_context_size=[[16, 7]])
    model.encoder.setup_streaming_params(chunk_size=4, shift_size=2)
    assert latency(model) == 160 and latency(model, [16, 7]) == 320


def test_a_size_without_limits_has_no_latency():
    with pytest.raises(ValueError, match=r"att_context_size=\[16, -1\]: a stream needs a limit to the right"):
        latency(ours(att_context_size=SIZES), [16, -1])
