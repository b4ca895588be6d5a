"""Tests of NeMo's cache-aware pipelines (``nemo.collections.asr.inference``): streams give the text of whole files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("nemo.collections.asr.inference", reason="this NeMo has no inference pipelines")
from nemo.collections.asr.inference.utils.context_manager import CacheAwareContext, CacheAwareContextManager

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import spelling_model
from tests.samples.encoders import SMALL, enliven
from tests.samples.pipelines import buffers_seen, pipeline_of, text_of
from tests.samples.speech import write_noises
from tests.samples.streams import noise_features

SIZES = [[24, 11], [24, 1]]
SECONDS = (2.3, 1.1, 0.31, 1.77, 0.9)
DECODERS = [("ctc", "ctc"), ("transducer", "rnnt"), ("hybrid", "ctc"), ("hybrid", "rnnt"), ("rotary ctc", "ctc")]


@pytest.fixture(scope="module")
def files(tokenizer, tmp_path_factory) -> tuple[list[str], dict[str, Path]]:
    """The paths of audio files, and of a trained model of each type."""
    folder = tmp_path_factory.mktemp("pipelines")
    paths, nemo_files = write_noises(folder, SECONDS), {}
    for kind in ("ctc", "transducer", "hybrid", "rotary ctc"):
        model = spelling_model(
            kind.split()[-1],
            paths,
            "bpe",
            tokenizer=tokenizer,
            preprocessor={"normalize": "NA"},
            encoder={
                "streaming": True,
                "att_context_size": SIZES,
                "conv_kernel_size": 5,
                "self_attention_model": "rope" if kind == "rotary ctc" else "rel_pos",
            },
        )
        nemo_files[kind] = folder / f"{kind}.nemo"
        model.save_to(str(nemo_files[kind]))
    return paths, nemo_files


def texts(pipeline: Any, paths: list[str]) -> list[str]:
    output = pipeline.run(paths)
    return [" ".join(output[i]["text"].split()) for i in range(len(paths))]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind, decoder", DECODERS)
def test_streamed_text_equals_the_text_of_whole_files(files, kind, decoder, size):
    """Decode five streams in two slots. The whole file is encoded from feature frame ``factor - 1`` on.

    A pipeline prepends feature frames to each chunk, also to the first chunk, and drops the encoder frames that they
    produce. The encoder treats feature frames before the start of a stream as zero padding. The features of the first
    encoder frame therefore end with the first ``factor`` feature frames of the first chunk.
    """
    paths, nemo_files = files
    pipeline = pipeline_of(nemo_files[kind], decoder, att_context_size=size)
    seen = buffers_seen(pipeline)
    streamed = texts(pipeline, paths)
    encoder = pipeline.asr_model.asr_model.encoder
    assert len(set("".join(streamed))) > 5 and encoder.att_context_size == size

    chunk = encoder.streaming_cfg.chunk_size[1]

    def whole(stream: int, start: int) -> str:
        x = torch.cat([buffer[:, -chunk:] for buffer, _ in seen[stream]], dim=1)[None, :, start:]
        with torch.no_grad():
            encoded, length = encoder(audio_signal=x, length=torch.tensor([x.size(2) - seen[stream][-1][1]]))
        return text_of(pipeline, decoder, encoded, int(length))

    assert [whole(i, start=encoder.subsampling_factor - 1) for i in range(len(paths))] == streamed
    assert [whole(i, start=0) for i in range(len(paths))] != streamed
    # The result does not depend on the slot and its earlier contents.
    assert texts(pipeline, paths[::-1]) == streamed[::-1]


def test_without_caches_each_window_is_encoded_separately(files):
    paths, nemo_files = files
    for kind, decoder in DECODERS[:2]:
        pipeline = pipeline_of(nemo_files[kind], decoder, att_context_size=[24, 11], use_cache=False)
        seen = buffers_seen(pipeline)
        streamed = texts(pipeline, paths[1:3])
        encoder = pipeline.asr_model.asr_model.encoder
        for i, text in enumerate(streamed):
            pieces, valid = [], 0
            for buffer, padding in seen[i]:
                with torch.no_grad():
                    x, length = encoder(audio_signal=buffer[None], length=torch.tensor([buffer.size(1) - padding]))
                pieces.append(x[:, :, 24:])
                valid += int(length) - 24
            assert text == text_of(pipeline, decoder, torch.cat(pieces, dim=2), valid)


@pytest.mark.parametrize("settings", [{"request_type": "feature_buffer"}, {"use_feat_cache": False}], ids=str)
def test_features_of_whole_buffers_stream(files, settings):
    paths, nemo_files = files
    for kind, decoder in DECODERS[:2]:
        streamed = texts(pipeline_of(nemo_files[kind], decoder, att_context_size=[24, 11], **settings), paths)
        assert len(set("".join(streamed))) > 5 and all(streamed)


def test_shorter_steps_than_the_models_chunks_overlap(files):
    paths, nemo_files = files
    pipeline = pipeline_of(nemo_files["ctc"], "ctc", att_context_size=[24, 11], chunk_size_in_secs=0.24)
    config = pipeline.asr_model.asr_model.encoder.streaming_cfg
    assert (config.valid_out_len, config.cache_drop_size) == (6, 6)
    assert all(texts(pipeline, paths))


def test_streams_start_and_end_while_other_streams_run():
    """With NeMo's slot manager, a stream starts in the reset slot of an ended stream while another stream runs."""
    torch.manual_seed(0)
    settings = SMALL | {"feat_in": 16, "subsampling_conv_channels": 8, "time_reduce_idx": 1, "streaming": True}
    encoder = SqueezeformerEncoder(**settings, att_context_size=[8, 3]).eval()
    enliven(encoder)
    config = encoder.streaming_cfg
    before, chunk = config.pre_encode_cache_size[1], config.chunk_size[1]
    utterances = noise_features([6 * chunk, 2 * chunk, 3 * chunk], 16)
    begins = {0: 0, 1: 1, 2: 3}  # stream 2 uses the slot of stream 1
    manager = CacheAwareContextManager(encoder, num_slots=2)
    outputs: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    for step in range(6):
        at = {i: step - begin for i, begin in begins.items() if 0 <= step - begin < utterances[i].size(1) // chunk}
        padded = {i: torch.cat([torch.full((16, before), -16.6), utterances[i]], dim=1) for i in at}
        features = torch.stack([padded[i][:, n * chunk : (n + 1) * chunk + before] for i, n in at.items()])
        context, mapping = manager.get_context(list(at))
        with torch.no_grad():
            encoded, lengths, *caches = encoder.cache_aware_stream_step(
                features,
                torch.full((len(at),), features.size(2)),
                context.cache_last_channel,
                context.cache_last_time,
                context.cache_last_channel_len,
            )
        manager.update_cache(list(at), CacheAwareContext(*caches), mapping)
        last = [(n + 1) * chunk == utterances[i].size(1) for i, n in at.items()]
        manager.reset_slots(list(at), last)
        assert lengths.tolist() == [4] * len(at)
        for i, output in zip(at, encoded):
            outputs[i].append(output)
    for i, utterance in enumerate(utterances):
        with torch.no_grad():
            whole, _ = encoder(audio_signal=utterance[None, :, encoder.subsampling_factor - 1 :])
        torch.testing.assert_close(torch.cat(outputs[i], dim=1), whole[0], atol=1e-5, rtol=0)
