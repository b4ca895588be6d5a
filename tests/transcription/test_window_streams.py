"""Tests of offline models in overlapping windows, and of the times of streams, without the command."""

from __future__ import annotations

import io
import json
from difflib import SequenceMatcher
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nemo.utils import logging

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.live.streams import Streams
from nemo_squeezeformer.transcription.live.window_streams import WindowStreams, choose_window
from tests.samples.asr_models import asr_model, spelling_model
from tests.samples.speech import RATE, write_noises

SECONDS = (5.3, 8.1, 6.31, 0.004, 3.2)  # the fourth is shorter than a feature frame; the fifth has 80 frames exactly
KINDS = [("ctc", "bpe"), ("transducer", "char"), ("hybrid", "bpe")]


@pytest.fixture(scope="module")
def files(tokenizer, tmp_path_factory) -> tuple[list[str], dict[str, Any]]:
    """The paths of audio files, and for each kind a model with full attention and normalized features."""
    folder = tmp_path_factory.mktemp("windows")
    paths = write_noises(folder, SECONDS)
    logging.setLevel(logging.ERROR)
    return paths, {kind: spelling_model(kind, paths, units, tokenizer=tokenizer) for kind, units in KINDS}


def streamed(streams: Any, paths: list[str], piece: int) -> list[str]:
    """Push pieces of ``piece`` samples of all files at once, and return the texts."""
    sounds = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]
    for slot in range(len(sounds)):
        streams.open(slot)
    for at in range(0, max(map(len, sounds)) + piece, piece):
        for slot, sound in enumerate(sounds):
            streams.push(slot, sound[at : at + piece])
            if at + piece >= len(sound):
                streams.end(slot)
        while streams.step(range(len(sounds))):
            pass
    assert all(streams.done(slot) for slot in range(len(sounds)))
    return [streams.text(slot) for slot in range(len(sounds))]


def offline_texts(model: Any, paths: list[str]) -> list[str]:
    return [
        model.transcribe([path], batch_size=1, verbose=False)[0].text if soundfile.info(path).frames > 160 else ""
        for path in paths
    ]


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_a_window_around_a_recording_gives_the_offline_text_and_shorter_windows_a_similar_text(files, kind):
    paths, models = files
    model = models[kind]
    expected = offline_texts(model, paths)
    window, latency = choose_window(model, window=20, milliseconds=18000)
    assert latency.startswith("18000 ms (windows of 20 s")
    assert streamed(WindowStreams(model, len(paths), window), paths, 7001) == expected

    window, _ = choose_window(model, milliseconds=1600, chunk=0.8, window=4.0)
    texts = streamed(WindowStreams(model, len(paths), window), paths, 7001)
    assert texts == streamed(WindowStreams(model, len(paths), window), paths, 30011) != expected
    for i in (0, 1, 2, 4):
        alike = [SequenceMatcher(None, texts[i], other, autojunk=False).ratio() for other in expected]
        assert alike[i] == max(alike) > 0.3, alike
    assert texts[3] == ""


def test_each_frame_of_a_ctc_model_comes_from_the_chunk_of_its_window(files):
    """The frames of the chunk are cut from the encodings of the window, which NeMo's modules compute here."""
    paths, models = files
    model = models["ctc"]
    window, _ = choose_window(model, milliseconds=1600, chunk=0.8, window=4.0)
    samples = torch.from_numpy(soundfile.read(paths[1], dtype="float32")[0])
    best: list[int] = []
    with torch.no_grad():
        for start in range(0, len(samples), window.chunk):
            stop = min(start + window.chunk + window.ahead, len(samples))
            first, last = max(stop - sum(window[:3]), 0), stop == len(samples)
            first += (start - first) % (2 * window.unit)  # the last window too begins with a pair of frames
            log_probs, lengths, _ = model(
                input_signal=samples[None, first:stop], input_signal_length=torch.tensor([stop - first])
            )
            skipped = (start - first) // window.unit
            count = int(lengths) - skipped if last else window.chunk // window.unit
            best += log_probs[0, skipped : skipped + count].argmax(-1).tolist()
            if last:
                break
    blank = model.decoding.blank_id
    tokens = [b for a, b in zip([blank, *best], best) if b not in (a, blank)]
    streams = WindowStreams(model, 1, window, words=True)
    assert streamed(streams, paths[1:2], 9999) == [model.decoding.decode_tokens_to_str_with_strip_punctuation(tokens)]
    assert streams.decoder.frames == [len(best)] and len(best) == -(-len(samples) // 640)


def test_slots_are_independent_and_can_be_used_again(files):
    paths, models = files
    window, _ = choose_window(models["transducer"], milliseconds=1600, chunk=0.8, window=4.0)
    streams = WindowStreams(models["transducer"], 2, window)
    first = streamed(streams, paths[:2], 7001)
    assert streamed(streams, paths[1::-1], 4096) == first[::-1]
    assert streams.buffers[0].samples.size(1) <= 4 * RATE  # memory is constant


@pytest.mark.parametrize(
    "given, parts",
    [
        ({}, (10.0, 2.0, 2.0)),
        ({"milliseconds": 1000}, (10.0, 0.48, 0.48)),
        ({"chunk": 1.0}, (10.0, 0.96, 1.04)),
        ({"milliseconds": 3000, "chunk": 1.0, "window": 6.0}, (2.96, 0.96, 2.08)),
    ],
)
def test_the_parts_of_a_window_follow_the_options(files, given, parts):
    _, models = files
    window, latency = choose_window(models["ctc"], **given)
    found = [part / RATE for part in window[:3]]
    assert found[1:] == pytest.approx(parts[1:], abs=0.041) and found[0] == pytest.approx(parts[0], abs=0.081)
    assert all(part % (2 * window.unit) == 0 for part in window[:3])  # the pairs of the temporal U-Net stay together
    assert latency.startswith(f"{round(1000 * (found[1] + found[2]))} ms (windows of ")


@pytest.mark.parametrize("given", [{"milliseconds": 2000, "chunk": 2.0}, {"window": 3.0}])
def test_parts_that_do_not_fit_are_refused(files, given):
    with pytest.raises(UserError, match="pass a longer --(latency|window)"):
        choose_window(files[1]["ctc"], **given)


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_the_words_of_a_stream_have_the_frames_of_their_tokens(kind, tokenizer, noises):
    """A stream in chunks gives the frames of the whole recording, which NeMo's decoder computes here."""
    encoder = {"streaming": True, "att_context_size": [16, 7]}
    model = spelling_model(kind, noises, "bpe", tokenizer=tokenizer, encoder=encoder, preprocessor={"normalize": "NA"})
    streams = Streams(model, len(noises), words=True, silence=0.1)
    texts = streamed(streams, noises, 3001)
    decode_tokens = model.decoding.decode_tokens_to_str_with_strip_punctuation
    for slot, path in enumerate(noises):
        times = streams.times
        times.finish(slot)
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        with torch.no_grad():
            encoded, lengths = model(input_signal=samples[None], input_signal_length=torch.tensor([len(samples)]))[:2]
            if kind == "ctc":
                best = encoded[0, : int(lengths)].argmax(-1).tolist()
                pairs = zip([model.decoding.blank_id, *best], best)
                tokens = [(b, i) for i, (a, b) in enumerate(pairs) if b not in (a, model.decoding.blank_id)]
            else:
                (found,) = model.decoding.decoding(encoder_output=encoded, encoded_lengths=lengths)[0]
                tokens = list(zip(map(int, found.y_sequence), map(int, found.timestamp)))
        assert decode_tokens([token for token, _ in tokens]) == texts[slot]
        words = times.rows(slot, "word")
        assert "".join(word["word"] for word in words) == texts[slot].replace(" ", "") != ""
        frames = {round(0.04 * frame, 3) for _, frame in tokens}
        assert {word["start"] for word in words} <= frames
        assert {round(word["end"] - 0.04, 3) for word in words} <= frames
        assert words[-1]["end"] == round(0.04 * (tokens[-1][1] + 1), 3)
        utterances = times.rows(slot, "utterance")
        assert utterances[-1]["end"] == words[-1]["end"] and len(utterances) > (slot != 2)  # slot 2 is short


def test_the_command_transcribes_an_offline_model_in_windows(ctc_file, files, tmp_path, monkeypatch, capsys):
    paths, _ = files
    out = tmp_path / "out.jsonl"
    given = ["stream", str(ctc_file), paths[0], paths[4], "--device", "cpu", "--timestamps", "--endpoint", "0.5"]
    assert main([*given, "--output", str(out)]) == 0
    printed = capsys.readouterr()
    assert "was not trained for streams (preprocessor.normalize='per_feature' needs the whole" in printed.err
    assert "latency 4000 ms (windows of 14 s: 10 s before a chunk, a chunk of 2 s, 2 s after it)" in printed.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert main(["transcribe", str(ctc_file), paths[4], "--device", "cpu"]) == 0
    assert rows[1]["pred_text"] == capsys.readouterr().out.rstrip("\n").partition("\t")[2]  # shorter than the window
    for row in rows:
        assert "".join(word["word"] for word in row["timestamps"]["word"]) == row["pred_text"].replace(" ", "")

    samples = soundfile.read(paths[0], dtype="int16")[0].astype("<i2")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(samples.tobytes())))
    assert main(["stream", str(ctc_file), "-", "--device", "cpu", "--chunk", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"final\t{rows[0]['pred_text']}"


def test_an_encoder_without_a_known_frame_length_is_refused(files):
    _, models = files
    other = SimpleNamespace(encoder=torch.nn.Identity(), preprocessor=models["ctc"].preprocessor)
    with pytest.raises(ValueError, match="an encoder of class Identity has no subsampling_factor"):
        choose_window(other)


def test_a_model_with_another_encoder_context_still_names_its_problem(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), RATE)
    model = asr_model("ctc", preprocessor={"normalize": "NA"})
    model.save_to(str(tmp_path / "offline.nemo"))
    found: Path = tmp_path / "offline.nemo"
    assert main(["stream", str(found), str(tmp_path / "a.wav"), "--device", "cpu"]) == 0
    assert main(["stream", str(found), str(tmp_path / "a.wav"), "--att-context-size", "[-1, -1]"]) == 2
