"""Tests of the torch-free program with graphs of whole utterances: its text is the text of ``transcribe``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from numpy.testing import assert_allclose

pytest.importorskip("onnxruntime")

from nemo_squeezeformer.__main__ import main as commands
from nemo_squeezeformer.deployment.onnx.description import describe_features
from nemo_squeezeformer.deployment.onnx_stream import utterance_features as whole
from nemo_squeezeformer.deployment.onnx_stream.__main__ import main
from nemo_squeezeformer.deployment.onnx_stream.session import Encoder
from nemo_squeezeformer.deployment.onnx_stream.utterance_features import utterance_features
from tests.deployment.test_onnx_stream import ALONE
from tests.samples.asr_models import spelling_model
from tests.samples.speech import RATE

KINDS = [
    ("transducer", "bpe", "all_features", None),
    ("hybrid", "bpe", "NA", "rnnt"),
    ("hybrid", "char", "per_feature", "ctc"),
]


@pytest.mark.parametrize("normalize", ["per_feature", "all_features", "NA"])
def test_the_features_of_an_utterance_are_the_features_of_nemo(normalize, monkeypatch):
    monkeypatch.setattr(whole, "PIECE", 1)  # the longest utterance has several pieces
    settings = {"dither": 0.0, "pad_to": 0, "normalize": normalize, "features": 80}
    nemo = AudioToMelSpectrogramPreprocessor(**settings).eval()
    described = describe_features(nemo)
    rng = np.random.default_rng(0)
    for n in (0, 159, 320, 4321, 52007):
        samples = (0.1 * rng.standard_normal(n)).astype(np.float32)
        found = utterance_features(samples, described)
        assert found.shape == (80, n // 160) and found.dtype == np.float32
        if n >= 160:
            expected, _ = nemo(input_signal=torch.from_numpy(samples)[None], length=torch.tensor([n]))
            assert_allclose(found, expected[0, :, : n // 160], atol=2e-4)


def export(model: Any, folder: Path, *options: str) -> Path:
    model.save_to(str(folder / "model.nemo"))
    output = folder / "model.onnx"
    assert commands(["export", str(folder / "model.nemo"), "--output", str(output), "--offline", *options]) == 0
    return output


def texts_of(out: str) -> dict[str, str]:
    return dict(line.split("\t") for line in out.splitlines())


@pytest.mark.parametrize("kind, units, normalize, decoder", KINDS)
def test_texts_and_times_are_those_of_transcribe(kind, units, normalize, decoder, noises, tokenizer, tmp_path, capsys):
    model = spelling_model(kind, noises, units, tokenizer=tokenizer, preprocessor={"normalize": normalize})
    output = export(model, tmp_path, *(["--decoder", decoder] if decoder else []))
    capsys.readouterr()
    assert main([str(output), *noises, "--quiet", "--timestamps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = texts_of("\n".join(line for line in lines if "\tword\t" not in line))
    words = [line.split("\t") for line in lines if "\tword\t" in line]
    if decoder:
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    expected = model.transcribe(noises, batch_size=1, verbose=False)
    assert found == {path: hypothesis.text for path, hypothesis in zip(noises, expected)}
    assert len(set(found.values())) == len(noises)
    for path in noises:
        assert [word for name, *_, word in words if name == path] == found[path].split()
    if kind == "transducer":
        (timed,) = model.transcribe(noises[:1], timestamps=True, verbose=False)
        rows = timed.timestamp["word"][:10]  # NeMo counts control tokens and lone spaces of later words differently
        assert [row[2:] for row in words[:10]] == [
            [f"{row['start']:.2f}", f"{row['end']:.2f}", row["word"]] for row in rows
        ]


@pytest.fixture(scope="module")
def int8(noises, tokenizer, tmp_path_factory) -> tuple[Any, Path]:
    """A CTC model, and its graph with 8-bit integers."""
    model = spelling_model("ctc", noises, "bpe", tokenizer=tokenizer)
    return model, export(model, tmp_path_factory.mktemp("int8"), "--int8")


def test_a_graph_with_integers_has_the_text_of_its_log_probabilities(int8, noises, capsys):
    model, output = int8
    assert main([str(output), *noises]) == 0
    printed = capsys.readouterr()
    encoder, texts = Encoder(output), []
    for path in noises:
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        features, frames = model.preprocessor(input_signal=samples[None], length=torch.tensor([len(samples)]))
        log_probs = encoder.utterance(features[0, :, : int(frames)].numpy())[None]
        lengths = torch.tensor([log_probs.shape[1]])
        texts += model.decoding.ctc_decoder_predictions_tensor(torch.from_numpy(log_probs), decoder_lengths=lengths)
    assert texts_of(printed.out) == {path: it.text for path, it in zip(noises, texts)}
    assert "2.30 s of audio in" in printed.err
    assert encoder.metadata["model"]["weights"] == "int8"


def test_standard_input_folders_and_manifests_have_the_texts_of_their_files(
    int8, noises, tmp_path, monkeypatch, capsys
):
    _, output = int8
    main([str(output), *noises, "--quiet"])
    expected = texts_of(capsys.readouterr().out)
    samples, _ = soundfile.read(noises[0], dtype="int16")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(samples.astype("<i2").tobytes())))
    assert main([str(output), "-", "--quiet"]) == 0
    assert texts_of(capsys.readouterr().out) == {"-": expected[noises[0]]}
    assert main([str(output), str(Path(noises[0]).parent), "--quiet"]) == 0
    assert texts_of(capsys.readouterr().out) == expected

    rows = [{"audio_filepath": noises[0], "duration": 2.3}, {"audio_filepath": noises[1], "offset": 0.3}]
    (tmp_path / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    soundfile.write(tmp_path / "rest.wav", soundfile.read(noises[1], dtype="int16")[0][int(0.3 * RATE) :], RATE)
    assert main([str(output), str(tmp_path / "rows.json"), str(tmp_path / "rest.wav"), "--quiet"]) == 0
    whole, part, rest = capsys.readouterr().out.splitlines()
    assert whole.partition("\t")[2] == expected[noises[0]]
    assert part.partition("\t")[2] == rest.partition("\t")[2] != expected[noises[1]]

    class Interrupted(io.BytesIO):
        """Ctrl-C ends a recording of a microphone."""

        def read1(self, size: int | None = -1) -> bytes:
            data = super().read1(size)
            if not data:
                raise KeyboardInterrupt
            return data

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Interrupted(samples.astype("<i2").tobytes())))
    assert main([str(output), "-", "--quiet"]) == 130
    assert texts_of(capsys.readouterr().out) == {"-": expected[noises[0]]}

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert main([str(output), "-"]) == 2 and "no audio" in capsys.readouterr().err


def test_audio_of_another_sample_rate_is_resampled_in_blocks_as_a_whole(int8, tmp_path, capsys):
    model, output = int8
    sound = 0.2 * np.random.default_rng(1).standard_normal(22050 * 2)
    soundfile.write(tmp_path / "fast.wav", sound, 22050, subtype="FLOAT")
    encoder = Encoder(output)
    assert main([str(output), str(tmp_path / "fast.wav"), "--quiet"]) == 0
    text = capsys.readouterr().out.partition("\t")[2].strip()
    samples = soxr.resample(sound.astype(np.float32), 22050, RATE, quality="HQ")
    log_probs = torch.from_numpy(encoder.utterance(utterance_features(samples, encoder.metadata["features"]))[None])
    (expected,) = model.decoding.ctc_decoder_predictions_tensor(log_probs, torch.tensor([log_probs.shape[1]]))
    assert text == expected.text.strip() and len(text) > 20


def test_neither_torch_nor_nemo_nor_soundfile_nor_soxr_is_needed(int8, noises, tmp_path, capsys):
    _, output = int8
    main([str(output), "--quiet", "--timestamps", *noises])
    with_all = capsys.readouterr().out
    assert "\tword\t" in with_all
    alone = ALONE.replace('"soundfile"', '"soundfile", "soxr"')

    def run(*given: Any) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", alone, "nemo_squeezeformer.onnx_stream", str(output), *map(str, given)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("--quiet", "--timestamps", *noises).stdout == with_all
    soundfile.write(tmp_path / "slow.wav", np.zeros(8000), 8000)
    refused = run(tmp_path / "slow.wav")
    assert refused.returncode == 2 and "8000 Hz, but the model needs 16000 Hz; install" in refused.stderr
