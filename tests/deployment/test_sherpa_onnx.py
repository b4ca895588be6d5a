"""Folders for sherpa-onnx, in the unmodified sherpa-onnx of PyPI.

The models have random weights and another token in nearly every frame. For the features of sherpa-onnx, the text of
sherpa-onnx must be the text of NeMo. Text of random models shows errors of a frame at once. The scores of two tokens
are nearly equal in so few frames that the rounding of the features does not change the text of these recordings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from onnx import parser

pytest.importorskip("sherpa_onnx")

from benchmarks.runtimes.sherpa import expected, recognized, recognizer
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
from nemo_squeezeformer.deployment.runtimes import sherpa_ctc
from nemo_squeezeformer.deployment.runtimes import sherpa_onnx as sherpa_onnx_folder
from nemo_squeezeformer.deployment.runtimes.folder import write_folder
from nemo_squeezeformer.deployment.runtimes.sherpa_tokens import check_tokens
from nemo_squeezeformer.deployment.runtimes.token_file import token_lines
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription import models
from tests.samples.asr_models import asr_model, spelling_model
from tests.samples.processors import int8_saturates
from tests.samples.speech import RATE, noise

WINDOW = {"window_size": 0.025}
DECODING = {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}}  # 10 is the limit of sherpa-onnx
TDT = {
    "joint": {"num_extra_outputs": 5},
    "decoding": DECODING | {"model_type": "tdt", "durations": [0, 1, 2, 3, 4], "greedy": {"max_symbols": 5}},
    "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": [0, 1, 2, 3, 4], "sigma": 0.05, "omega": 0.1}},
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, np.ndarray]:
    """Return recordings with lengths of every remainder of the subsampling factor, by their paths."""
    folder, found = tmp_path_factory.mktemp("recordings"), {}
    for seed, frames in enumerate((97, 140, 203, 302)):
        # Without loud noise, some features are so near to zero energy that the rounding of an FFT changes them.
        samples = noise(frames / 100 + 0.003, seed)
        samples = 0.5 * samples + 0.1 * np.random.default_rng(seed).standard_normal(len(samples))
        soundfile.write(folder / f"{seed}.wav", samples, RATE)
        found[str(folder / f"{seed}.wav")] = soundfile.read(folder / f"{seed}.wav", dtype="float32")[0]
    return found


def built(kind: str, recordings: dict[str, np.ndarray], decoder: str | None = None, **changes: Any) -> Any:
    """Return a model of this kind. The arguments are the arguments of ``spelling_model``."""
    changes = {"decoding": DECODING} | changes if kind != "ctc" else changes
    preprocessor = WINDOW | changes.pop("preprocessor", {})
    model = spelling_model(kind, list(recordings), preprocessor=preprocessor, **changes)
    models.choose_decoder(model, decoder)
    if kind != "ctc":  # fewer tokens: after a token, many tokens of a random transducer have nearly equal scores
        with torch.no_grad():
            model.joint.joint_net[-1].bias[model.decoder.blank_idx] += 2.0
    return model


def streaming(
    kind: str, context: tuple[int, int], recordings: dict[str, np.ndarray], decoder: str | None = None, **settings: Any
) -> Any:
    encoder = {"streaming": True, "att_context_size": [list(context)], **settings}
    return built(kind, recordings, decoder, encoder=encoder, preprocessor={"normalize": "NA"})


OFFLINE = {
    "ctc": ("ctc", "char", None, {}),
    "rotary positions": ("transducer", "char", None, {"encoder": {"self_attention_model": "rope"}}),
    "ctc without normalization": ("ctc", "char", None, {"preprocessor": {"normalize": "NA"}}),
    "transducer": ("transducer", "char", None, {}),
    "tdt": ("transducer", "bpe", None, TDT),  # for characters, NeMo's decoding of TDT drops the last five characters
    "hybrid, ctc": ("hybrid", "bpe", "ctc", {}),
    "hybrid, transducer": ("hybrid", "bpe", "rnnt", {}),
}


@pytest.mark.parametrize("name", OFFLINE)
def test_whole_utterances_have_the_text_of_nemo(name, recordings, tokenizer, tmp_path):
    kind, units, decoder, changes = OFFLINE[name]
    model = built(kind, recordings, decoder, units=units, tokenizer=tokenizer, **changes)
    texts = expected(model, list(recordings.values()), streaming=False)
    write_folder("sherpa-onnx", model, tmp_path / "folder", GraphSettings(streaming=False))
    found = recognizer(tmp_path / "folder", streaming=False)
    assert recognized(found, list(recordings.values())) == texts
    assert min(map(len, texts)) > 5
    readme = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    assert ("--high-freq=0" in readme) == (kind == "transducer" or decoder == "rnnt")


LATENCIES = [
    pytest.param((16, 1), id="80 ms"),
    pytest.param((24, 11), id="480 ms", marks=pytest.mark.slow),
    pytest.param((26, 25), id="1040 ms", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("context", LATENCIES)
@pytest.mark.parametrize("kind, decoder", [("hybrid", "ctc"), ("hybrid", "rnnt")])
def test_streams_have_the_text_of_nemo(kind, decoder, context, recordings, tmp_path):
    assert_streams_have_the_text_of_nemo(streaming(kind, context, recordings, decoder), recordings, tmp_path)


@pytest.mark.parametrize("decoder", [pytest.param("ctc", marks=pytest.mark.slow), "rnnt"])
def test_streams_with_rotary_positions_have_the_text_of_nemo(decoder, recordings, tmp_path):
    model = streaming("hybrid", (16, 3), recordings, decoder, self_attention_model="rope")
    assert_streams_have_the_text_of_nemo(model, recordings, tmp_path)


def assert_streams_have_the_text_of_nemo(model: Any, recordings: dict[str, np.ndarray], tmp_path: Path) -> None:
    texts = expected(model, list(recordings.values()), streaming=True)
    write_folder("sherpa-onnx", model, tmp_path / "folder", GraphSettings(streaming=True))
    found = recognizer(tmp_path / "folder", streaming=True)
    assert recognized(found, list(recordings.values())) == texts
    assert min(map(len, texts)) > 5


def refused(model: Any, streams: bool) -> str:
    with pytest.raises(UserError) as error:
        sherpa_onnx_folder.check(model, GraphSettings(streams))
    return str(error.value)


def test_a_model_that_sherpa_onnx_cannot_run_is_refused_with_the_reason():
    assert "another band" in refused(asr_model(preprocessor={"window_size": 0.025, "highfreq": 4000}), False)
    assert "a Hann window of 400 samples" in refused(asr_model(), False)  # NeMo's default window has 320 samples
    assert "hop=320 instead of 160" in refused(asr_model(preprocessor=WINDOW | {"window_stride": 0.02}), False)
    assert "normalize=all_features" in refused(asr_model(preprocessor=WINDOW | {"normalize": "all_features"}), False)
    target = "nemo_squeezeformer.OriginalMelSpectrogramPreprocessor"
    original = asr_model(preprocessor={"_target_": target, "normalize": "utterance"})
    assert "variant: original" in refused(original, False)
    assert "add --offline" in refused(asr_model(preprocessor=WINDOW | {"normalize": "NA"}), True)


def test_durations_run_only_in_whole_utterances_and_without_gaps():
    encoder = {"streaming": True, "att_context_size": [16, 3]}
    model = asr_model("transducer", preprocessor=WINDOW | {"normalize": "NA"}, encoder=encoder, **TDT)
    assert "no streams of TDT" in refused(model, True)
    model.cfg.decoding.durations = [0, 1, 2, 4, 8]
    assert "durations=[0, 1, 2, 4, 8]" in refused(model, False)


@pytest.mark.parametrize(
    "tokens, reason",
    [
        (["a", "b c"], "cannot contain token 1, 'b c'"),
        (["a", "\n"], "cannot contain token 1"),
        (["a", "a"], "'a' exists twice"),
        (["<blk>"], "'<blk>' exists twice"),
        ([" ", "\u2581"], "exists twice"),
        (["SIL"], "leaves the token 'SIL' out"),
        (["\u2581a\u2581b"], "has a space inside"),
        (["a", "\u01b0"], "byte-level"),
    ],
)
def test_a_vocabulary_that_sherpa_onnx_reads_differently_is_refused(tokens, reason):
    with pytest.raises(UserError, match=reason):
        token_lines(tokens, "sherpa-onnx")
        check_tokens(tokens, transducer=False)


def test_spaces_unknown_and_control_tokens_have_names_in_the_file():
    lines = token_lines(["a", " ", " \u2047 ", ""], "sherpa-onnx")
    assert lines == "a 0\n\u2581 1\n<unk> 2\n<control-3> 3\n<blk> 4\n"
    check_tokens(["a", "\u01b0", "\u1ea1"], transducer=False)


def spelled(best: np.ndarray) -> list[int]:
    """Return the tokens of greedy CTC for the best token of each frame. The blank is 5."""
    return [token for token, _ in groupby(best.tolist()) if token != 5]


@pytest.mark.parametrize("seed", range(3))
def test_the_removed_frame_of_ctc_does_not_change_the_text(seed):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = parser.parse_model(sherpa_ctc.REMOVAL.replace("FACTOR", "4").replace("BLANK", "5"))
    session, rng = onnxruntime.InferenceSession(model.SerializeToString()), np.random.default_rng(seed)
    changed = 0
    for _ in range(300):
        lengths = rng.integers(1, 60, size=3)
        best = rng.choice(6, size=(3, -(-lengths.max() // 4)), p=[0.1] * 5 + [0.5])
        (kept,) = session.run(None, {"logits": np.eye(6, dtype=np.float32)[best], "length": lengths})
        for row, n, read in zip(best, lengths, kept.argmax(axis=-1)):
            whole, frames = row[: -(-n // 4)], n // 4
            possible = [np.delete(whole, i) for i in range(len(whole))] if n % 4 else [whole]
            if any(spelled(fewer) == spelled(whole) for fewer in possible):
                assert spelled(read[:frames]) == spelled(whole)
                changed += spelled(whole[:frames]) != spelled(whole)
    assert changed > 30  # without the change of the graph, these texts lose their last token


@pytest.mark.slow
def test_the_command_line_of_sherpa_onnx_reads_the_readmes_folder(recordings, tmp_path, capsys):
    """The README's commands run as they are: sherpa-onnx's program, and Python."""
    model = streaming("hybrid", (24, 11), recordings, "ctc")
    lead = np.zeros(80, dtype=np.float32)  # the README puts 5 ms of silence before the recording
    (text,) = expected(model, [np.concatenate([lead, next(iter(recordings.values()))])], streaming=True)
    model.save_to(str(tmp_path / "model.nemo"))
    given = [str(tmp_path / "model.nemo"), "--for", "sherpa-onnx", "--output", str(tmp_path / "folder")]
    assert main(["export", *given, "--decoder", "ctc"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main(["export", *given]) == 2 and "--force" in capsys.readouterr().err
    readme = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    shutil.copy(next(iter(recordings)), tmp_path / "folder" / "audio.wav")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command, python = re.findall(r"```(?:bash|python)\n(.*?)\n```", readme, flags=re.DOTALL)
    for run in (command.split(), [sys.executable, "-c", python]):
        done = subprocess.run(run, cwd=tmp_path / "folder", env=environment, capture_output=True, text=True, check=True)
        assert text in " ".join((done.stdout + done.stderr).split())


@pytest.mark.slow
@pytest.mark.parametrize("streams", [False, True], ids=["whole utterances", "streams"])
@pytest.mark.parametrize("weights", ["int8", "float16"])
def test_smaller_weights_give_nearly_the_text_of_float32(weights, streams, recordings, tmp_path):
    if weights == "int8" and int8_saturates():
        pytest.skip("int8 sums saturate on this processor, and the text of random weights changes with them")
    model = streaming("hybrid", (24, 11), recordings, "rnnt" if streams else "ctc")
    texts = expected(model, list(recordings.values()), streams)
    write_folder("sherpa-onnx", model, tmp_path / "folder", GraphSettings(streams, weights=weights))
    found = recognized(recognizer(tmp_path / "folder", streams), list(recordings.values()))
    assert SequenceMatcher(None, " ".join(found), " ".join(texts), autojunk=False).ratio() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("manifest", ["digits/connected_test_seen.jsonl", "speechocean/dev.jsonl"])
def test_streams_of_40_recordings_of_speech_have_the_text_of_nemo(manifest, digits, tmp_path):
    rows = [json.loads(row) for row in (digits.parent / manifest).read_text(encoding="utf-8").splitlines()[:40]]
    paths = [str((digits.parent / manifest).parent / row["audio_filepath"]) for row in rows]
    speech = {path: soundfile.read(path, dtype="float32")[0] for path in paths}
    model = streaming("hybrid", (24, 11), dict(list(speech.items())[:4]), "ctc")
    texts = expected(model, list(speech.values()), streaming=True)
    write_folder("sherpa-onnx", model, tmp_path / "folder", GraphSettings(streaming=True))
    assert recognized(recognizer(tmp_path / "folder", streaming=True), list(speech.values())) == texts
