"""Tests of offline models in overlapping windows: NeMo's buffered inference gives nearly the offline text."""

from __future__ import annotations

import math
from difflib import SequenceMatcher
from typing import Any

import pytest
import torch
from nemo.collections.asr.parts.utils import streaming_utils
from omegaconf import OmegaConf

from tests.samples.asr_models import spelling_model
from tests.samples.pipelines import pipeline_of
from tests.samples.speech import write_noises

SECONDS = (5.3, 8.1, 6.31)
CHUNK, WINDOW, STRIDE = 1.6, 4.0, 0.04
TOKENS = math.ceil(CHUNK / STRIDE)
DELAY = math.ceil((CHUNK + (WINDOW - CHUNK) / 2) / STRIDE)


@pytest.fixture(scope="module")
def files(tokenizer, tmp_path_factory) -> tuple[list[str], dict[str, Any]]:
    """The paths of audio files, and for each type a trained model and its file."""
    folder = tmp_path_factory.mktemp("buffered")
    paths, models = write_noises(folder, SECONDS), {}
    for kind in ("ctc", "transducer", "hybrid"):
        model = spelling_model(kind, paths, "bpe", tokenizer=tokenizer)
        model.save_to(str(folder / f"{kind}.nemo"))
        models[kind] = model, folder / f"{kind}.nemo"
    return paths, models


def offline_texts(model: Any, paths: list[str]) -> list[str]:
    return [" ".join(h.text.split()) for h in model.transcribe(paths, batch_size=3, verbose=False)]


def assert_alike(texts: list[str], offline: list[str]) -> None:
    """Check that each text is more similar to its own offline text than to the other offline texts."""
    for i, text in enumerate(texts):
        alike = [SequenceMatcher(None, text, other, autojunk=False).ratio() for other in offline]
        assert alike[i] == max(alike) > 0.3, alike


@pytest.mark.parametrize("kind", ["ctc", "hybrid"])
def test_ctc_frames_of_windows_follow_each_other(files, kind):
    """The frames are the middle frames of each window, which ``FrameBatchASR`` keeps."""
    paths, models = files
    model, _ = models[kind]
    if kind == "hybrid":
        model.change_decoding_strategy(decoder_type="ctc", verbose=False)
    asr = streaming_utils.FrameBatchASR(asr_model=model, frame_len=CHUNK, total_buffer=WINDOW, batch_size=2)
    if kind == "hybrid":
        asr.blank_id = len(model.ctc_decoder.vocabulary)
    texts = []
    for path in paths:
        asr.reset()
        asr.read_audio_file(path, DELAY, STRIDE)
        text, log_probs = asr.transcribe(TOKENS, DELAY, keep_logits=True)
        texts.append(" ".join(text.split()))
        windows = torch.stack([torch.from_numpy(window) for window in asr.frame_buffers])
        with torch.no_grad():
            encoded, lengths = model.encoder(audio_signal=windows, length=torch.full((len(windows),), windows.size(2)))
            decoder = model.ctc_decoder if kind == "hybrid" else model.decoder
            expected = decoder(encoder_output=encoded)
        t = math.ceil(WINDOW / STRIDE)
        assert lengths.tolist() == [t] * len(windows)
        middle = expected[:, t - 1 - DELAY : t - 1 - DELAY + TOKENS].flatten(0, 1)
        torch.testing.assert_close(log_probs, middle, atol=1e-4, rtol=1e-5)  # some values are below -10
    assert_alike(texts, offline_texts(model, paths))


@pytest.mark.parametrize("merge, stateful", [("middle", False), ("middle", True), ("subsequence", False)])
def test_transducers_decode_windows_in_a_batch_as_without_a_batch(files, merge, stateful):
    paths, models = files
    model, _ = models["transducer"]
    strategy = "greedy" if stateful else "greedy_batch"
    changes = {"strategy": strategy, "preserve_alignments": True, "fused_batch_size": -1}
    decoding = OmegaConf.merge(OmegaConf.to_container(model.cfg.decoding), changes)
    model.change_decoding_strategy(decoding, verbose=False)
    middle = merge == "middle"
    name = "BatchedFrameASRRNNT" if middle else "LongestCommonSubsequenceBatchedFrameASRRNNT"
    results = []
    for batch in (1, 3):
        asr = getattr(streaming_utils, name)(
            asr_model=model, frame_len=CHUNK, total_buffer=WINDOW, batch_size=batch, stateful_decoding=stateful
        )
        if not middle:
            asr.lcs_delay = math.floor((WINDOW - CHUNK) / STRIDE)
        texts: list[str] = []
        for start in range(0, 3, batch):
            asr.reset()
            asr.read_audio_file(paths[start : start + batch], DELAY, STRIDE)
            texts += asr.transcribe(TOKENS, DELAY)
        results.append(texts)
    model.change_decoding_strategy(model.cfg.decoding, verbose=False)
    assert results[0] == results[1]
    for text, seconds in zip(results[0], SECONDS):
        assert len(set(text)) > 5 and len(text) > 5 * seconds


PIPELINES = [
    ("ctc", "ctc", "frame"),
    ("transducer", "rnnt", "feature_buffer"),
    ("hybrid", "ctc", "feature_buffer"),
    ("hybrid", "rnnt", "frame"),
]


@pytest.mark.parametrize("kind, decoder, request_type", PIPELINES)
def test_pipelines_decode_windows(files, kind, decoder, request_type):
    pytest.importorskip("nemo.collections.asr.inference", reason="this NeMo has no inference pipelines")
    paths, models = files
    model, nemo_file = models[kind]
    if kind == "hybrid":
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    offline = offline_texts(model, paths)
    one_window = {"chunk_size": 8.8, "left_padding_size": 0.0, "right_padding_size": 0.0}
    results = []
    for windows in (one_window, {}):
        pipeline = pipeline_of(nemo_file, decoder, buffered=True, request_type=request_type, **windows)
        output = pipeline.run(paths)
        results.append([" ".join(output[i]["text"].split()) for i in range(len(paths))])
    whole, texts = results
    assert texts != whole
    assert_alike(texts, offline)
    if hasattr(pipeline, "tail_padding_in_samples"):
        return  # NeMo 2.7.3 includes the silence after the audio in the normalization of features
    if decoder == "ctc":  # the CTC pipeline also decodes the padding after the end of the audio
        whole = [text[: len(expected)] for text, expected in zip(whole, offline)]
    assert whole == offline
