"""Tests that the ONNX program returns the text of NeMo's streaming, and needs neither NeMo nor torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sentencepiece
import soundfile
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer

pytest.importorskip("onnxruntime")

from nemo_squeezeformer.__main__ import main as commands
from nemo_squeezeformer.deployment.onnx.tokens import pieces
from nemo_squeezeformer.deployment.onnx_stream import decoding, recordings
from nemo_squeezeformer.deployment.onnx_stream.__main__ import main
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY
from nemo_squeezeformer.deployment.token_text import text
from tests.samples.asr_models import spelling_model
from tests.samples.speech import WORDS, noise
from tests.samples.streams import streamed_texts

STREAMING = {
    "encoder": {"streaming": True, "att_context_size": [[16, 7], [16, 3]]},
    "preprocessor": {"normalize": "NA"},
}
KINDS = [
    ("ctc", "bpe", None),
    ("transducer", "char", None),
    ("hybrid", "bpe", "rnnt"),
    ("hybrid", "char", "ctc"),
]
ROTARY = {"self_attention_model": "rope"}

ALONE = """
import runpy, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "nemo", "lightning", "omegaconf", "onnx", "soundfile", "librosa"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(noises, tmp_path_factory) -> Path:
    """A spelling transducer, by the name that was given to the export."""
    folder = tmp_path_factory.mktemp("exported")
    spelling_model("transducer", noises, **STREAMING).save_to(str(folder / "model.nemo"))
    assert commands(["export", str(folder / "model.nemo"), "--output", str(folder / "model.onnx")]) == 0
    return folder / "model.onnx"


@pytest.mark.parametrize("kind, units, decoder, positions", [*((*kind, {}) for kind in KINDS), (*KINDS[1], ROTARY)])
def test_the_text_equals_the_text_of_nemos_streaming(
    kind, units, decoder, positions, noises, tokenizer, tmp_path, capsys
):
    settings = STREAMING | {"encoder": STREAMING["encoder"] | positions}
    model = spelling_model(kind, noises, units, tokenizer=tokenizer, **settings)
    model.save_to(str(tmp_path / "model.nemo"))
    chosen = ["--decoder", decoder] if decoder else []
    output = tmp_path / "model.onnx"
    given = ["export", str(tmp_path / "model.nemo"), "--output", str(output), "--att-context-size", "[16, 3]", *chosen]
    assert commands(given) == 0
    capsys.readouterr()
    assert main([str(output), *noises]) == 0
    printed = capsys.readouterr()
    texts = dict(line.split("\t") for line in printed.out.splitlines())

    if decoder:
        model.change_decoding_strategy(decoder_type=decoder)
    model.encoder.set_default_att_context_size([16, 3])
    assert texts == {path: streamed_texts(model, [path])[0] for path in noises}
    assert all(texts.values()) and len(set(texts.values())) == len(noises)
    partials = [line.partition(" s  ")[2] for line in printed.err.splitlines() if " s  " in line]
    assert len(partials) > len(noises) and texts[noises[0]] in partials


def test_neither_torch_nor_nemo_nor_soundfile_is_needed(exported, noises, capsys):
    main([str(exported), "--quiet", *noises])
    with_all = capsys.readouterr().out
    alone = [
        sys.executable,
        "-c",
        ALONE,
        "nemo_squeezeformer.onnx_stream",
        str(exported),
        "--quiet",
        *noises,
    ]
    assert subprocess.run(alone, capture_output=True, text=True, check=True).stdout == with_all
    blocked = subprocess.run([sys.executable, "-c", ALONE, "torch"], capture_output=True, text=True)
    assert "torch is blocked" in blocked.stderr  # the block of imports works


def test_the_limit_of_tokens_per_frame_applies(exported, noises, capsys):
    main([str(exported), "--quiet", *noises])
    before = capsys.readouterr().out
    path = exported.with_name(f"encoder-{exported.name}")
    assert described(path)["transducer"]["max_symbols"] == 2  # the limit of the model
    limited = exported.with_name("limited.onnx")
    described(path, limited, lambda found: found["transducer"].update(max_symbols=1))
    main([str(limited), "--quiet", *noises])
    shorter = capsys.readouterr().out
    assert len(shorter) < len(before)


def described(path: Path, copy: Path | None = None, change: Any = None) -> dict[str, Any]:
    """Return the metadata of the graph at ``path``.

    If ``copy`` is given, apply ``change`` to the metadata, and write the graph with the changed metadata to ``copy``.
    """
    model = onnx.load(str(path))
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    found = json.loads(entry.value)
    if copy is not None:
        change(found)
        entry.value = json.dumps(found)
        onnx.save(model, str(copy))
    return found


def test_error_messages_name_the_mistake(exported, noises, tmp_path, capsys):
    def complaint(*given: Any) -> str:
        assert main([str(one) for one in given]) == 2
        return capsys.readouterr().err

    path = exported.with_name(f"encoder-{exported.name}")
    assert "there is no file" in complaint(tmp_path / "none.onnx", noises[0])
    assert "there is no file" in complaint(exported, tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no audio")
    assert "is corrupt or has a format that is not read" in complaint(exported, tmp_path / "text.wav")
    decoder = exported.with_name(f"decoder_joint-{exported.name}")
    assert "give the encoder's file" in complaint(decoder, noises[0])
    described(path, tmp_path / "new.onnx", lambda found: found.update(version=99))
    assert "version 99, not 1" in complaint(tmp_path / "new.onnx", noises[0])
    assert "cannot be combined with other inputs" in complaint(exported, "-", noises[0])
    assert "--sample-rate 8000 is for standard input" in complaint(exported, noises[0], "--sample-rate", 8000)
    described(path, tmp_path / "scaled.onnx", lambda found: found["features"].update(normalize="per_feature"))
    (tmp_path / decoder.name).write_bytes(decoder.read_bytes())
    assert "normalize='per_feature'" in complaint(tmp_path / "scaled.onnx", noises[0])


def test_audio_shorter_than_a_frame_has_an_empty_text(exported, tmp_path, capsys):
    soundfile.write(tmp_path / "click.wav", np.zeros(100), 16000)
    assert main([str(exported), "--quiet", str(tmp_path / "click.wav")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'click.wav'}\t\n"


@pytest.mark.parametrize("has_soundfile", [True, False])
def test_files_without_samples_and_cut_files_are_errors(has_soundfile, exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recordings, "_has_soundfile", lambda: has_soundfile)
    soundfile.write(tmp_path / "whole.wav", noise(2.0), 16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:40_000])
    for name, reason in (("empty.wav", "has a header but no samples"), ("cut.wav", "but its header says 2.00 s")):
        assert main([str(exported), "--quiet", str(tmp_path / name)]) == 2
        printed = capsys.readouterr()
        assert f"{name}' " in printed.err and reason in printed.err and not printed.out
    assert main([str(exported), "--quiet", str(tmp_path / "whole.wav")]) == 0


@pytest.mark.parametrize(
    "extra_spaces", [{}, {"remove_extra_whitespaces": False}, {"add_dummy_prefix": False}], ids=str
)
def test_tokens_become_the_same_text_as_in_sentencepiece(extra_spaces, tmp_path):
    settings = {"byte_fallback": True, "vocab_size": 290, "minloglevel": 2, **extra_spaces}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 3), model_prefix=str(tmp_path / "tokenizer"), hard_vocab_limit=False, **settings
    )
    tokenizer = SentencePieceTokenizer(str(tmp_path / "tokenizer.model"))
    metadata = pieces(tokenizer)
    assert len(metadata["tokens"]) == tokenizer.vocab_size
    space, unknown = tokenizer.tokenizer.piece_to_id("\u2581"), tokenizer.tokenizer.unk_id()
    texts = ["zero one", "\u00e9t\u00e9 one", "three\u4e2d", "", "  six"]
    tokens = [tokenizer.text_to_ids(text) for text in texts]
    tokens += [[unknown, *tokens[0]], [space, *tokens[0]], [space, space, *tokens[0]], [space], [space, unknown, 1, 2]]
    for one in tokens:
        assert text(one, metadata) == tokenizer.ids_to_text(one)


def test_ctc_remembers_its_last_token_between_chunks():
    ctc = decoding.CTC(blank=2)
    best = np.eye(3)[[0, 0, 2, 1]], np.eye(3)[[1, 1, 2, 1]]
    assert [ctc.step(chunk) for chunk in best] == [[(0, 0), (1, 3)], [(1, 7)]]  # each token with its frame


def test_an_offline_export_describes_its_features_and_tokens(ctc_file, tmp_path):
    given = ["export", str(ctc_file), "--output", str(tmp_path / "model.onnx")]
    assert commands(given) == 2 and not (tmp_path / "model.onnx").exists()
    assert commands([*given, "--offline"]) == 0
    found = described(tmp_path / "model.onnx")
    assert found["steps"] is None and found["caches"] == [] and found["features"]["normalize"] == "per_feature"
