"""Folders for onnx-asr, in the unmodified onnx-asr of PyPI.

The models have random weights and another token in nearly every frame. The text of onnx-asr must be the text of
``transcribe``, except for white space: onnx-asr removes a space before a space or before a punctuation mark.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnx_asr")

from benchmarks.runtimes.onnx_asr_texts import features_of, load, recognized_from
from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
from nemo_squeezeformer.deployment.runtimes.folder import write_folder
from nemo_squeezeformer.deployment.runtimes.onnx_asr import FILES
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import refuse_folder
from nemo_squeezeformer.transcription import models
from tests.samples.asr_models import LETTERS, asr_model, spelling_model
from tests.samples.speech import RATE, noise

WHOLE = GraphSettings(streaming=False)
WINDOW = {"window_size": 0.025}  # NeMo's default is 20 ms
SPACES = re.compile(r"\A\s|\s\B|(\s)\b")  # the pattern of onnx-asr


def tdt(durations: list[int]) -> dict[str, Any]:
    return {
        "joint": {"num_extra_outputs": len(durations)},
        "decoding": {"model_type": "tdt", "durations": durations, "greedy": {"max_symbols": 3}},
        "loss": {"loss_name": "tdt_pytorch", "tdt_pytorch_kwargs": {"durations": durations, "sigma": 0.05}},
    }


KINDS: list[Any] = [
    ("ctc", None, {}, "ctc"),
    ("transducer", None, {}, "rnnt"),
    ("transducer", None, tdt([0, 1, 2, 3, 4]), "tdt"),
    ("hybrid", "ctc", {}, "ctc"),
    ("hybrid", "rnnt", {}, "rnnt"),
    ("ctc", None, {"encoder": {"self_attention_model": "rope"}}, "ctc"),
]
IDS = ["ctc", "transducer", "tdt", "hybrid ctc", "hybrid transducer", "rotary positions"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("recordings")
    paths = [str(folder / f"{seed}.wav") for seed in range(3)]
    for seed, (path, frames) in enumerate(zip(paths, (97, 140, 203))):
        soundfile.write(path, noise(frames / 100 + 0.003, seed), RATE)
    return paths


def built(kind: str, recordings: list[str], decoder: str | None = None, **changes: Any) -> Any:
    model = spelling_model(kind, recordings, preprocessor=WINDOW, **changes)
    models.choose_decoder(model, decoder)
    return model


def spoken(text: str) -> str:
    return SPACES.sub(lambda space: " " if space[1] else "", text)


def texts_of(model: Any, audio: list[Any], type_: str) -> list[str]:
    """Return the texts of ``transcribe`` with the white space of onnx-asr."""
    found = model.transcribe(audio, batch_size=1, verbose=False)
    # For TDT with characters, NeMo's text lacks the last characters of the vocabulary, but its tokens are complete.
    texts = ["".join(LETTERS[int(i)] for i in one.y_sequence) if type_ == "tdt" else one.text for one in found]
    return [spoken(text) for text in texts]


def recognized(folder: Path, recordings: list[str]) -> list[str]:
    """Return the texts of onnx-asr, which finds the type of the model in the folder."""
    found = load(folder)
    return [found.recognize(path) for path in recordings]


@pytest.mark.parametrize("kind, decoder, changes, type_", KINDS, ids=IDS)
def test_the_text_is_the_text_of_transcribe(kind, decoder, changes, type_, recordings, tmp_path):
    model = built(kind, recordings, decoder, **changes)
    expected = texts_of(model, recordings, type_)
    write_folder("onnx-asr", model, tmp_path / "folder", WHOLE)
    assert json.loads((tmp_path / "folder/config.json").read_text())["model_type"] == f"nemo-conformer-{type_}"
    assert recognized(tmp_path / "folder", recordings) == expected
    assert min(map(len, expected)) > 5


@pytest.fixture(scope="module")
def speech(digits) -> list[np.ndarray]:
    """Return 40 recordings of digits and 40 recordings of sentences."""
    manifests = (digits / "connected_test_seen.jsonl", digits.parent / "speechocean" / "dev.jsonl")
    found = []
    for manifest in manifests:
        rows = [json.loads(line) for line in manifest.read_text().splitlines()[:40]]
        found += [soundfile.read(manifest.parent / row["audio_filepath"], dtype="float32")[0] for row in rows]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind, decoder, changes, type_", KINDS, ids=IDS)
def test_real_speech_has_the_text_of_transcribe_for_equal_features(
    kind, decoder, changes, type_, speech, recordings, tmp_path
):
    model = built(kind, recordings, decoder, **changes)
    expected = texts_of(model, speech, type_)
    features = [features_of(model, samples) for samples in speech]
    write_folder("onnx-asr", model, tmp_path / "folder", WHOLE)
    found = load(tmp_path / "folder")
    own = [found.recognize(samples) for samples in speech]
    # On x86, no text differs. On other processors, other rounding of the features can decide between equal scores.
    assert sum(a != b for a, b in zip(own, expected)) <= 1
    assert recognized_from(found, features, speech) == expected
    assert len(set(expected)) > 40


@pytest.mark.parametrize("weights", ["int8", "float16"])
def test_smaller_weights_load_under_the_same_name(weights, recordings, tmp_path):
    write_folder("onnx-asr", built("ctc", recordings), tmp_path / "folder", GraphSettings(False, weights=weights))
    assert min(map(len, recognized(tmp_path / "folder", recordings))) > 5


@pytest.mark.parametrize(
    "changes, settings, message",
    [
        ({}, GraphSettings(streaming=True), "add --offline"),
        ({"preprocessor": WINDOW | {"normalize": "NA"}}, WHOLE, "normalize=None instead of per_feature"),
        ({"preprocessor": WINDOW | {"features": 64}, "encoder": {"feat_in": 64}}, WHOLE, "features=64 instead of 80"),
        ({"preprocessor": WINDOW | {"highfreq": 4000}}, WHOLE, "another band"),
        ({"preprocessor": WINDOW, **tdt([0, 2, 4])}, WHOLE, r"durations=\[0, 2, 4\]"),
    ],
    ids=["stream", "normalization", "number of features", "band", "durations"],
)
def test_what_the_runtime_cannot_run_is_refused_before_writing(changes, settings, message, tmp_path):
    model = asr_model("transducer", **changes)
    with pytest.raises(UserError, match=message):
        write_folder("onnx-asr", model, tmp_path / "folder", settings)
    assert not list(tmp_path.iterdir())


def test_a_link_that_leads_to_no_folder_is_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    for force in (False, True):
        with pytest.raises(UserError, match="link is a file; choose another name for the folder"):
            refuse_folder(tmp_path / "link", FILES, force)
