"""Tests of NeMo's streaming interface: the chunks of NeMo's buffer equal the whole utterance under the same mask."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
import torch
from nemo.collections.asr.modules import ConformerEncoder
from torch import Tensor
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import asr_model
from tests.samples.conformer_recipes import recipe
from tests.samples.encoders import SMALL, enliven
from tests.samples.streams import STYLES, UNETS, noise_features, offline, steps, streamed, streaming_encoder


@pytest.fixture(scope="module")
def model():
    """A model whose encoder the tests replace. NeMo's buffer reads only ``streaming_cfg`` of the encoder."""
    return asr_model(preprocessor={"normalize": "NA"})


def some(encoder: Any, seed: int = 0) -> list[Tensor]:
    """Return features of three streams of different lengths. One has three steps, one can be shorter than a step."""
    rng = random.Random(seed)
    config = encoder.streaming_cfg
    chunk, shift = (size if isinstance(size, int) else size[1] for size in (config.chunk_size, config.shift_size))
    most = chunk + 2 * shift + rng.randint(-3, 3)
    return noise_features([most, rng.randint(1, most), rng.randint(1, 20)], encoder.feat_in, seed)


def assert_same(outputs: list[Tensor], expected: list[Tensor], atol: float = 1e-5) -> None:
    assert [x.size(1) for x in outputs] == [x.size(1) for x in expected]
    for output, whole in zip(outputs, expected):
        assert_close(output, whole, atol=atol, rtol=0)


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("style", STYLES)
def test_chunks_of_nemos_buffer_equal_the_whole(model, style, unet):
    for seed in range(3):
        model.encoder = encoder = streaming_encoder(style, unet, seed)
        utterances = some(encoder, seed)
        whole = offline(encoder, utterances)
        assert_same(streamed(model, utterances), whole)
        forgotten = streamed(model, utterances[:1], forget=True)[0]
        remembers = encoder.streaming_cfg.last_channel_cache_size or encoder.layers[0].conv.left or unet != "no unet"
        assert not remembers or (forgotten - whole[0]).abs().max() > 1e-3


def test_any_number_of_frames_streams(model):
    model.encoder = encoder = streaming_encoder("chunked_limited", chunk=2, subsampling_factor=4)
    for total in range(1, 41):
        utterances = noise_features([total, max(total - 3, 1)], encoder.feat_in)
        assert_same(streamed(model, utterances), offline(encoder, utterances))


def test_caches_keep_their_shapes_and_dtypes(model):
    model.encoder = encoder = streaming_encoder("chunked_limited", chunk=4)
    initial = encoder.get_initial_cache_state(2)
    last = None
    for _, _, caches in steps(model, noise_features([2000, 1900], encoder.feat_in)):
        assert [(c.shape, c.dtype) for c in caches] == [(c.shape, c.dtype) for c in initial]
        last = caches
    assert last is not None and last[2].tolist() == [max(encoder.streaming_cfg.last_channel_cache_size, 2)] * 2


@pytest.mark.parametrize("style", STYLES)
def test_subsampled_features_stream_with_bypass_pre_encode(style):
    encoder = streaming_encoder(style)
    x = noise_features([200], encoder.feat_in)[0][None]
    config = encoder.streaming_cfg
    chunk, caches, outputs = config.valid_out_len + config.cache_drop_size, encoder.get_initial_cache_state(1), []
    with torch.no_grad():
        whole, _ = encoder(audio_signal=x)
        frames, _ = encoder.subsample(x, None)
        assert_close(encoder(audio_signal=frames, bypass_pre_encode=True)[0], whole, atol=0, rtol=0)
        for start in range(0, frames.size(1), config.valid_out_len):
            output, _, *caches = encoder.cache_aware_stream_step(
                frames[:, start : start + chunk],
                None,
                *caches,
                keep_all_outputs=start + config.valid_out_len >= frames.size(1),
                bypass_pre_encode=True,
            )
            outputs.append(output)
    assert_close(torch.cat(outputs, dim=2), whole, atol=1e-5, rtol=0)


def test_caches_of_another_size_are_refused(model):
    model.encoder = encoder = streaming_encoder("chunked_limited", att_context_size=[[8, 3], [16, 7]])
    caches = encoder.get_initial_cache_state(2)
    x, lengths = torch.randn(2, 16, 40), torch.tensor([40, 40])

    def step(channel: Any, time: Any, length: Any) -> None:
        encoder.cache_aware_stream_step(x, lengths, channel, time, length)

    step(*caches)
    with pytest.raises(ValueError, match="go together"):
        step(caches[0], None, caches[2])
    with pytest.raises(ValueError, match="cache_last_time of shape"):
        step(caches[0], caches[1][..., 1:], caches[2])
    with pytest.raises(ValueError, match="cache_last_channel_len .* has 3 streams, but the chunk has 2"):
        step(caches[0], caches[1], caches[2].new_zeros(3))
    with pytest.raises(ValueError, match="cache_last_channel .* has 3 streams, but the chunk has 2"):
        step(*encoder.get_initial_cache_state(3))
    encoder.set_default_att_context_size([16, 7])
    assert encoder.streaming_cfg.chunk_size[1] == 8 * encoder.subsampling_factor
    with pytest.raises(ValueError, match="get_initial_cache_state.* again after a change of att_context_size"):
        step(*caches)


def test_each_of_several_look_aheads_streams_with_its_chunk_size(model):
    sizes = [[24, 11], [24, 3], [24, 1], [-1, -1]]
    model.encoder = encoder = streaming_encoder("chunked_limited", att_context_size=sizes)
    utterances = some(encoder)
    outputs = []
    for size in sizes[:3]:
        encoder.set_default_att_context_size(size)
        assert encoder.streaming_cfg.valid_out_len == size[1] + 1
        outputs.append(streamed(model, utterances))
        assert_same(outputs[-1], offline(encoder, utterances))
    assert (outputs[0][0] - outputs[1][0]).abs().max() > 1e-3  # the masks differ
    encoder.set_default_att_context_size([-1, -1])
    assert encoder.streaming_cfg is None
    with pytest.raises(ValueError, match="limit to the right"):
        encoder.setup_streaming_params()


def test_setup_streaming_params_overrides_chunks(model):
    model.encoder = encoder = streaming_encoder("chunked_limited", att_context_size=[-1, 3], subsampling_factor=4)
    encoder.setup_streaming_params(chunk_size=8, shift_size=4, left_chunks=3)
    config = encoder.streaming_cfg
    assert (config.chunk_size, config.shift_size) == ([29, 32], [13, 16])
    assert (config.valid_out_len, config.cache_drop_size, config.last_channel_cache_size) == (4, 4, 24)
    encoder.setup_streaming_params(max_context=40)
    assert encoder.streaming_cfg.last_channel_cache_size == 40
    utterances = noise_features([160, 77], encoder.feat_in)
    assert_same(streamed(model, utterances), offline(encoder, utterances))  # 40 frames cover the whole utterance
    for chunk in ({"chunk_size": 7}, {"chunk_size": 8, "shift_size": 7}):
        with pytest.raises(ValueError, match="=7 frames must be a multiple of 2.*nearest values are 6 or 8"):
            encoder.setup_streaming_params(**chunk)
    with pytest.raises(ValueError, match="shift_size=8 must not be larger than chunk_size=4"):
        encoder.setup_streaming_params(chunk_size=4, shift_size=8)


def test_an_offline_model_streams_in_overlapping_chunks(model):
    settings = SMALL | {"feat_in": 16, "subsampling_conv_channels": 8, "time_reduce_idx": 1}
    model.encoder = encoder = SqueezeformerEncoder(**settings).eval()
    enliven(encoder)
    utterances = noise_features([400, 300], 16)
    whole = offline(encoder, utterances)
    encoder.setup_streaming_params(chunk_size=40, shift_size=20, left_chunks=3)
    outputs = streamed(model, utterances)
    errors = [(x - y).norm() / y.norm() for x, y in zip(outputs, whole)]
    assert [x.shape for x in outputs] == [y.shape for y in whole] and 1e-4 < max(errors) < 0.5
    encoder.setup_streaming_params(chunk_size=120, left_chunks=1)  # one chunk is the whole utterance
    assert_same(streamed(model, utterances), whole)


WITHOUT_DROPOUT = {"dropout": 0.0, "dropout_pre_encoder": 0.0, "dropout_emb": 0.0, "dropout_att": 0.0}
FAST_CONFORMERS = ["fastconformer streaming", "fastconformer streaming, several", "fastconformer streaming, odd chunks"]


@pytest.mark.parametrize("name", FAST_CONFORMERS)
def test_nemos_streaming_recipes_stream_with_the_target_changed(model, name):
    torch.manual_seed(0)
    model.encoder = encoder = SqueezeformerEncoder(feat_in=20, **recipe(name, **WITHOUT_DROPOUT)).eval()
    enliven(encoder)
    assert (encoder.time_reduce_layer is not None) == (name != "fastconformer streaming, odd chunks")
    # With a length other than 1 + 8 n, NeMo's causal subsampling adds padding at the end.
    utterances = noise_features([401, 265], 20)
    for size in encoder.att_context_size_all:
        encoder.set_default_att_context_size(size)
        assert_same(streamed(model, utterances), offline(encoder, utterances))


@pytest.mark.parametrize("name", ["fastconformer streaming, odd chunks", "conformer ctc streaming"])
def test_streaming_equals_nemos_conformer_with_the_same_weights(model, name):
    settings = recipe(name, **WITHOUT_DROPOUT)
    if name.startswith("conformer"):
        settings |= {"att_context_size": [28, 13], "subsampling_conv_channels": 8}
    theirs = ConformerEncoder(feat_in=20, **settings).eval()
    enliven(theirs)
    ours = SqueezeformerEncoder(feat_in=20, block="conformer", time_reduce_idx=None, **settings).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    utterances = noise_features([400, 265], 20)
    several = isinstance(settings["att_context_size"][0], list)
    for size in [[70, 13], [70, 6], [70, 1]] if several else [[28, 13]]:
        results, initial = [], []
        for encoder in (theirs, ours):
            encoder.set_default_att_context_size(size)
            encoder.setup_streaming_params()
            model.encoder = encoder
            initial.append([tuple(cache.shape) for cache in encoder.get_initial_cache_state(2)])
            results.append(list(steps(model, utterances)))
        assert initial[0] == initial[1]
        layers = {"last_channel_num": 4, "last_time_num": 4}  # NeMo keeps the value 0
        assert vars(theirs.streaming_cfg) | layers == vars(ours.streaming_cfg)
        for (x, n, caches), (y, m, others) in zip(*results, strict=True):
            assert n.tolist() == m.tolist()
            for i, length in enumerate(n.tolist()):
                assert_close(y[i, :, :length], x[i, :, :length], atol=1e-5, rtol=0)
            assert others[2].tolist() == caches[2].tolist()
            assert_close(others[1], caches[1], atol=1e-5, rtol=0)
            for i, valid in enumerate(caches[2].tolist()):
                assert_close(others[0][:, i, -valid:], caches[0][:, i, -valid:], atol=1e-5, rtol=0)


RESUME = """
import sys, torch
from tests.samples.streams import streaming_encoder
frames, caches, size = torch.load(sys.argv[1])
encoder = streaming_encoder("chunked_limited", chunk=4, subsampling_factor=4)
outputs = []
for chunk in frames.split(size, dim=1):
    with torch.no_grad():
        output, _, *caches = encoder.cache_aware_stream_step(chunk, None, *caches, bypass_pre_encode=True)
    outputs.append(output)
torch.save(torch.cat(outputs, dim=2), sys.argv[1] + ".out")
"""


@pytest.mark.slow
def test_a_stream_resumes_from_saved_caches_in_another_process(tmp_path):
    encoder = streaming_encoder("chunked_limited", chunk=4, subsampling_factor=4)
    x = noise_features([200], encoder.feat_in)[0][None]
    with torch.no_grad():
        whole, _ = encoder(audio_signal=x)
        frames, _ = encoder.subsample(x, None)
        caches = encoder.get_initial_cache_state(1)
        for chunk in frames[:, :24].split(4, dim=1):
            _, _, *caches = encoder.cache_aware_stream_step(chunk, None, *caches, bypass_pre_encode=True)
    torch.save((frames[:, 24:].clone(), caches, 4), tmp_path / "stream.pt")
    subprocess.run([sys.executable, "-c", RESUME, str(tmp_path / "stream.pt")], check=True)
    assert_close(torch.load(tmp_path / "stream.pt.out"), whole[:, :, 24:], atol=1e-5, rtol=0)


def test_a_context_that_does_not_stream_removes_earlier_streaming_settings(model):
    model.encoder = encoder = streaming_encoder("chunked_limited", att_context_size=[[24, 11], [-1, -1]])
    assert encoder.streaming_cfg is not None
    with pytest.raises(ValueError, match="limit to the right"):
        encoder.setup_streaming_params(att_context_size=[-1, -1])
    assert encoder.streaming_cfg is None
    encoder.setup_streaming_params(att_context_size=[24, 11])
    assert encoder.streaming_cfg.valid_out_len == 12
