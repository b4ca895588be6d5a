"""``transcribe --cut pauses``: speech is cut at pauses, silence has an empty text, and errors stay in their rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nemo.collections.asr")
pytest.importorskip("silero_vad", reason="the detection of speech needs silero-vad")
pytest.importorskip("espeakng_loader", reason="synthetic speech needs espeakng-loader")

import numpy as np
import soundfile
import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.asr_models import spelling_model
from tests.samples.speech import RATE
from tests.samples.talk import talk

PAUSES = [0.6, 1.2, 0.9, 3.0, 0.7, 1.0, 0.8, 1.5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with speech, shorter speech, silence, and speech that cannot be read to its end."""
    folder = tmp_path_factory.mktemp("recordings")
    soundfile.write(folder / "long.wav", talk(PAUSES).samples, RATE)
    soundfile.write(folder / "short.wav", talk([0.4]).samples, RATE)
    soundfile.write(folder / "silent.wav", np.zeros(12 * RATE), RATE)
    soundfile.write(folder / "broken.flac", talk(PAUSES).samples, RATE)
    data = bytearray((folder / "broken.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    (folder / "broken.flac").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def loaded(folder) -> dict[str, Any]:
    return {kind: spelling_model(kind, [str(folder / "long.wav")]) for kind in ("ctc", "hybrid")}


@pytest.fixture
def run(loaded, tmp_path, monkeypatch) -> Callable[..., int]:
    def call(*arguments: object, kind: str = "ctc") -> int:
        path = tmp_path / f"{kind}.nemo"
        if not path.exists():
            loaded[kind].save_to(str(path))
        kept = loaded.setdefault(f"{kind} loaded", None) or load_model(str(path), torch.device("cpu"))
        loaded[f"{kind} loaded"] = kept
        monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: kept)
        return main(["transcribe", str(path), *map(str, arguments), "--device", "cpu"])

    return call


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def whole_of(run: Callable[..., int], folder: Path, out: Path, *options: object) -> dict[str, dict[str, Any]]:
    """Return the row of each recording by the name of the recording."""
    assert run(folder, "--output", out, "--cut", "pauses", *options) == 1
    return {Path(row["audio_filepath"]).stem: row for row in rows_of(out)}


@pytest.mark.parametrize(("kind", "decoder"), [("ctc", "ctc"), ("hybrid", "rnnt")])
def test_the_text_is_the_text_of_the_pieces_at_their_times(run, folder, tmp_path, kind, decoder):
    options, name = ["--timestamps", "--decoder", decoder], folder / "long.wav"
    assert run(name, "--output", tmp_path / "cut.jsonl", "--cut", "pauses", "--longest", 4, *options, kind=kind) == 0
    [row] = rows_of(tmp_path / "cut.jsonl")
    words = row["timestamps"]["word"]
    assert " ".join(word["word"] for word in words) == " ".join(row["pred_text"].split())
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    # The pieces, decoded by the command without cuts, from their places in the recording.
    manifest = tmp_path / "pieces.json"
    pieces = [{"audio_filepath": str(name), "offset": a, "duration": b - a} for a, b in spans(folder)]
    assert 4 <= len(pieces) <= len(PAUSES)
    manifest.write_text("".join(json.dumps(piece) + "\n" for piece in pieces))
    assert run(manifest, "--output", tmp_path / "pieces.jsonl", "--cut", "none", *options, kind=kind) == 0
    each = rows_of(tmp_path / "pieces.jsonl")
    assert row["pred_text"] == " ".join(text for piece in each if (text := piece["pred_text"].strip()))
    expected = [
        [word["word"], piece["offset"] + word["start"]] for piece in each for word in piece["timestamps"]["word"]
    ]
    assert [word["word"] for word in words] == [word for word, _ in expected]
    assert starts == pytest.approx([start for _, start in expected], abs=0.002)


def spans(folder: Path) -> list[tuple[float, float]]:
    """Return the start and the end of the pieces of the long recording, in whole samples."""
    from nemo_squeezeformer.files.manifests import read_files
    from nemo_squeezeformer.transcription.live.audio_blocks import FileBlocks
    from nemo_squeezeformer.transcription.pauses.detector import Detector
    from nemo_squeezeformer.transcription.pauses.pieces import pieces

    [utterance] = read_files([folder / "long.wav"])
    found = pieces(FileBlocks(utterance, RATE, "average"), RATE, Detector(), 4.0)
    return [(piece.start, piece.start + len(piece.samples) / RATE) for piece in found]


def test_silence_has_an_empty_text_and_a_broken_recording_has_an_error(run, folder, tmp_path, capsys):
    rows = whole_of(run, folder, tmp_path / "out.jsonl", "--timestamps")
    assert rows["silent"]["pred_text"] == "" and "error" not in rows["silent"]
    assert "damaged after second" in rows["broken"]["error"] and "pred_text" not in rows["broken"]
    assert len(rows["long"]["pred_text"]) > 4 * len(rows["short"]["pred_text"]) > 0
    assert "1 of 4 utterances could not be read" in capsys.readouterr().err
    assert run(folder / "silent.wav", "--cut", "pauses", "--format", "vtt") == 0
    assert capsys.readouterr().out == "WEBVTT\n"


def test_an_interrupted_run_keeps_finished_recordings_and_continues(run, folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.jsonl"
    whole = whole_of(run, folder, tmp_path / "whole.jsonl")
    module = "nemo_squeezeformer.transcription.pauses.cut_recordings"
    from nemo_squeezeformer.transcription.pauses import cut_recordings

    pieces = cut_recordings.pieces

    def stop_at_the_last(blocks: Any, *more: Any) -> Any:
        if Path(blocks.audio).stem == "short":  # the shortest recording is read last
            raise KeyboardInterrupt
        return pieces(blocks, *more)

    with monkeypatch.context() as patched:
        patched.setattr(f"{module}.TOGETHER", 1.0)
        patched.setattr(f"{module}.pieces", stop_at_the_last)
        assert run(folder, "--output", out, "--cut", "pauses") == 130
    kept = [
        json.loads(line)["row"]["audio_filepath"] for line in (tmp_path / "out.jsonl.partial").open() if "row" in line
    ]
    assert len(kept) >= 2 and not out.exists()
    assert run(folder, "--output", out, "--cut", "none", "--resume") == 2
    assert '--cut was "pauses" and is now "none"' in capsys.readouterr().err
    assert run(folder, "--output", out, "--cut", "pauses", "--resume") == 1
    assert {Path(row["audio_filepath"]).stem: row for row in rows_of(out)} == whole


def test_only_long_recordings_are_cut_by_default(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_squeezeformer.commands.rows.cut_options.LONG", 15.0)
    cut = whole_of(run, folder, tmp_path / "cut.jsonl")
    assert run(folder, "--output", tmp_path / "auto.jsonl") == 1
    assert run(folder, "--output", tmp_path / "none.jsonl", "--cut", "none") == 1
    auto, none = (
        {Path(row["audio_filepath"]).stem: row.get("pred_text") for row in rows_of(tmp_path / f"{name}.jsonl")}
        for name in ("auto", "none")
    )
    assert auto["long"] == cut["long"]["pred_text"] != none["long"]
    assert auto["silent"] == none["silent"] and auto["short"] == none["short"] != cut["short"]["pred_text"]


def test_the_longest_piece_can_be_chosen(run, folder, tmp_path):
    short = whole_of(run, folder, tmp_path / "out.jsonl", "--longest", "2")
    assert short["long"]["pred_text"] != whole_of(run, folder, tmp_path / "all.jsonl")["long"]["pred_text"]


def test_without_silero_vad_long_recordings_are_one_call_and_the_command_says_so(
    run, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("nemo_squeezeformer.transcription.pauses.detector.is_installed", lambda: False)
    monkeypatch.setattr("nemo_squeezeformer.commands.rows.cut_options.LONG", 15.0)
    assert run(folder / "long.wav") == 0
    out, err = capsys.readouterr()
    assert "1 recordings of 15 s or more are decoded in one call each" in err and "nemo-squeezeformer[vad]" in err
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: pytest.fail("loaded"))
    for options in (["--cut", "pauses"], ["--longest", "5"]):
        assert main(["transcribe", str(tmp_path / "ctc.nemo"), str(folder / "long.wav"), *options]) == 2
        assert "needs the package silero-vad" in capsys.readouterr().err


def test_longest_needs_cuts(folder, tmp_path, capsys):
    (tmp_path / "model.nemo").write_bytes(b"")
    arguments = ["transcribe", "model", str(folder / "long.wav")]
    assert main([*arguments, "--cut", "none", "--longest", "5"]) == 2
    assert "--longest is for recordings that are cut" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--longest", "0.5"])
