"""Tests of NeMo's streaming Sortformer, which calls subsampling and layers separately to reuse subsampled frames."""

from __future__ import annotations

import pytest
import torch

from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types import MODEL_TYPES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    kind, folder = MODEL_TYPES["SortformerEncLabelModel"], tmp_path_factory.mktemp("sortformer")
    chunks = [f"model.sortformer_modules.{key}" for key in ("chunk_len=4", "spkcache_len=16", "fifo_len=4")]
    chunks += ["model.sortformer_modules.spkcache_update_period=4", "model.streaming_mode=true"]
    torch.manual_seed(0)
    return build(compose("squeezeformer_sortformer", [*kind.overrides(folder), *chunks])).eval()


@torch.no_grad()
def test_subsampling_followed_by_the_layers_equals_the_encoder(model):
    features = torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([100, 61])
    whole, whole_lengths = model.frontend_encoder(features, lengths)
    x, x_lengths = model.encoder.pre_encode(x=features.transpose(1, 2), lengths=lengths)
    halves, halves_lengths = model.frontend_encoder(x, x_lengths, bypass_pre_encode=True)
    assert whole_lengths.tolist() == halves_lengths.tolist() == [13, 8]
    torch.testing.assert_close(halves, whole, rtol=0, atol=0)
    assert not torch.allclose(model.frontend_encoder(x.flip(1), x_lengths, bypass_pre_encode=True)[0], whole)


@torch.no_grad()
def test_a_recording_is_diarized_chunk_by_chunk(model):
    samples = torch.randn(1, 32000, generator=torch.Generator().manual_seed(1))
    speakers = model.forward(audio_signal=samples, audio_signal_length=torch.tensor([32000]))
    assert speakers.shape == (1, 25, 4)  # 2 s at 80 ms per frame
    assert speakers.isfinite().all() and speakers.min() >= 0 and speakers.max() <= 1
    assert speakers.std() > 0
