"""Timestamps of letters, words and segments: an encoder frame is the subsampling factor times the feature stride long.

The temporal U-Net does not change this length.
"""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from tests.samples.asr_models import asr_model

SECONDS = [2.0, 1.3]
FACTORS = [4, 8]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """The audio files of two utterances of noise."""
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    paths = [folder / f"{i}.wav" for i in range(len(SECONDS))]
    for path, seconds in zip(paths, SECONDS):
        soundfile.write(path, 0.1 * rng.standard_normal(int(16000 * seconds)), 16000)
    return [str(path) for path in paths]


def transcribe(model, files: list[str]) -> list:
    hypotheses = model.transcribe(files, batch_size=2, timestamps=True, num_workers=0, verbose=False)
    return hypotheses[0] if isinstance(hypotheses, tuple) else hypotheses


def check(hypothesis, seconds: float, frame: float) -> None:
    """Check the times of all units: multiples of ``frame`` seconds, in order, and within the audio."""
    assert {"char", "word", "segment"} <= set(hypothesis.timestamp) and hypothesis.timestamp["char"]
    for kind in ("char", "word", "segment"):
        units = hypothesis.timestamp[kind]
        for unit in units:
            assert_close(unit["start"], unit["start_offset"] * frame)
            assert_close(unit["end"], unit["end_offset"] * frame)
            assert 0 <= unit["start_offset"] <= unit["end_offset"] and unit["end"] <= seconds + 2 * frame
        starts = [unit["start_offset"] for unit in units]
        assert starts == sorted(starts)
    assert hypothesis.timestamp["char"][-1]["end"] > seconds / 2  # the random model outputs letters up to the end


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("units", ["char", "bpe"])
@pytest.mark.parametrize("kind", ["ctc", "transducer", "hybrid"])
def test_times_lie_on_the_encoders_frames(kind, units, factor, files, tokenizer):
    model = asr_model(kind, units, tokenizer=tokenizer, encoder={"subsampling_factor": factor})
    decoders = ["rnnt", "ctc"] if kind == "hybrid" else [None]
    for decoder in decoders:
        if decoder:
            model.change_decoding_strategy(decoder_type=decoder, verbose=False)
        for hypothesis, seconds in zip(transcribe(model, files), SECONDS):
            check(hypothesis, seconds, frame=0.01 * factor)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_letter_ends_where_it_is_emitted_and_starts_where_the_letter_before_it_ends(factor, files):
    model = asr_model(encoder={"subsampling_factor": factor})
    hypothesis = transcribe(model, files)[0]
    samples, _ = soundfile.read(files[0], dtype="float32")
    with torch.no_grad():
        log_probs, lengths, _ = model(
            input_signal=torch.from_numpy(samples)[None], input_signal_length=torch.tensor([len(samples)])
        )
    frames = log_probs[0, : lengths[0]].argmax(-1).tolist()
    assert len(frames) == -(-200 // factor)  # 32000 samples, one feature frame for each 160 samples
    blank = model.decoder.num_classes_with_blank - 1
    emitted = [i for i, label in enumerate(frames) if label != blank and (i == 0 or frames[i - 1] != label)]
    letters = "".join(model.decoder.vocabulary[frames[i]] for i in emitted)
    units = hypothesis.timestamp["char"]
    assert [unit["end_offset"] for unit in units] == emitted and len(emitted) > 10
    assert [unit["start_offset"] for unit in units[1:]] == emitted[:-1]
    assert hypothesis.text.replace(" ", "") == letters.replace(" ", "")
