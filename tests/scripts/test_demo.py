"""The demo from end to end with few steps: speech, training, transcripts, model file, figure."""

import argparse
import io
import json
import os
import subprocess
import sys
from itertools import groupby

import pytest

pytest.importorskip("nemo", reason="the demo trains through NeMo")
pytest.importorskip("espeakng_loader", reason="the demo needs espeakng-loader")
pytest.importorskip("matplotlib", reason="the demo needs matplotlib")

import demo

from nemo_squeezeformer.errors import UserError
from tests.samples.paths import ROOT


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The output folder of a demo of 6 steps, and the finished process."""
    output = tmp_path_factory.mktemp("demo") / "out"
    options = ["--train", "24", "--test", "6", "--voices", "9", "--steps", "6"]
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--output", str(output), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture(scope="module")
def model(ran):
    from nemo.collections.asr.models import ASRModel

    return ASRModel.restore_from(str(ran[0] / "squeezeformer.nemo"), map_location="cpu").eval()


@pytest.mark.slow
def test_the_report_names_wer_speed_voices_and_files(ran):
    output, done = ran
    for expected in ("WER:", "RTF:", "not in the training data", "reference", "| hypothesis", "for 6 steps"):
        assert expected in done.stdout
    for name in ("squeezeformer.nemo", "demo.png", "demo.log"):
        assert str(output / name) in done.stdout
    assert f"transcribe {output / 'squeezeformer.nemo'} FILE" in done.stdout


@pytest.mark.slow
def test_nemos_messages_go_to_the_log_and_not_to_the_screen(ran):
    output, done = ran
    assert "[NeMo I" in (output / "demo.log").read_text()
    assert "NeMo I" not in done.stdout + done.stderr
    assert "arning" not in done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_the_model_restores_with_our_encoder(model):
    from nemo_squeezeformer import SqueezeformerEncoder

    assert isinstance(model.encoder, SqueezeformerEncoder)


@pytest.mark.slow
def test_the_figure_is_an_image(ran):
    from PIL import Image

    with Image.open(ran[0] / "demo.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 800
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 100


def _make_it_babble(model, utterance):
    """Make the model output random letters, with large differences between frames.

    After six steps of training it outputs almost no letters.
    """
    import torch

    layer = model.decoder.decoder_layers[0]
    torch.manual_seed(0)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    demo.align(model, utterance, argparse.Namespace(text="", timestamp={"word": []}))
    handle.remove()
    with torch.no_grad():
        layer.bias -= seen[-1].mean(dim=(0, 2))


@pytest.mark.slow
def test_the_frames_in_the_figure_spell_the_transcript(ran, model):
    from nemo_squeezeformer.files import manifests
    from nemo_squeezeformer.transcription import hypotheses, models

    utterance = manifests.read_utterances(ran[0] / "speech" / "test.jsonl", required=("text",))[0]
    _make_it_babble(model, utterance)
    config = hypotheses.decoding_config(model, [utterance], timestamps=True)
    models.enable_timestamps(model)
    [[result]] = hypotheses.decode(model, config, [utterance], 1, 0, "average")
    hypothesis = result.best
    aligned = demo.align(model, utterance, hypothesis)
    best = [token for token, _ in groupby(aligned.probabilities.argmax(axis=1))]
    spelled = "".join(aligned.tokens[token] for token in best if token < len(aligned.tokens))
    assert len(spelled.strip()) > 3
    assert spelled == hypothesis.text
    assert aligned.features.shape[1] * aligned.feature_seconds == pytest.approx(utterance.duration, abs=0.03)
    assert len(aligned.probabilities) * aligned.output_seconds == pytest.approx(utterance.duration, abs=0.06)


@pytest.mark.slow
def test_a_model_for_user_data_has_the_characters_of_the_data(ran, tmp_path):
    source = ran[0] / "speech"
    for part in ("train", "dev"):
        rows = [json.loads(line) for line in (source / f"{part}.jsonl").read_text().splitlines()]
        for row in rows:
            row["text"] = row["text"].upper()
            row["audio_filepath"] = str(source / row["audio_filepath"])
        name = {"train": "train_manifest.json", "dev": "val_manifest.json"}[part]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = demo.find_manifests(tmp_path)
    assert found["test"] == found["dev"] == tmp_path / "val_manifest.json"
    args = argparse.Namespace(data=tmp_path, steps=1, minutes=5.0, seed=0)
    trained, losses, wers = demo.train(args, found, io.StringIO())
    assert set(trained.cfg.labels) <= set(" ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert len(losses) == len(wers) == 1


def test_missing_manifests_are_named_with_what_was_looked_for(tmp_path):
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match=r"no dev manifest; looked for dev\*\.json.*found train\.jsonl"):
        demo.find_manifests(tmp_path)
    with pytest.raises(UserError, match="nowhere: this folder does not exist"):
        demo.find_manifests(tmp_path / "nowhere")


def test_an_output_that_is_a_file_is_named_before_anything_slow(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: the folder is not writable"):
        demo.prepare(argparse.Namespace(output=tmp_path / "file", data=None))
