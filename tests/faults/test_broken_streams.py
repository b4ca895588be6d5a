"""Tests that a stream that breaks, or a signal, takes no text from the other streams."""

from __future__ import annotations

import contextlib
import io
import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile

pytest.importorskip("nemo.collections.asr")
import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.files.manifests import read_files
from nemo_squeezeformer.transcription.live.audio_blocks import FileBlocks
from nemo_squeezeformer.transcription.live.player import Player
from nemo_squeezeformer.transcription.live.streams import Streams
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.bad_recordings import write_broken_in_the_middle, write_good, write_no_header, write_value
from tests.samples.speech import RATE, noise

CHOSEN = ["--latency", "160", "--decoder", "ctc", "--device", "cpu"]
BROKEN = (4, 9, 10, 17, 23, 30)  # of 32 streams


@pytest.fixture(scope="module")
def model(hybrid_file):
    return load_model(str(hybrid_file), torch.device("cpu"))


@pytest.fixture(autouse=True)
def restored_once(monkeypatch, model):
    """Restore the model only once, because this takes longer than the rest of these tests."""
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: model)


@pytest.fixture(autouse=True)
def handled_ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal. A program that a shell has started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[Path]:
    """32 recordings. Some of them break in their middle, or have a sample that is not finite."""
    folder, paths = tmp_path_factory.mktemp("recordings"), []
    for number in range(32):
        path, seconds = folder / f"{number:02d}.wav", 0.6 + 0.05 * (number * 5 % 16)
        if number not in BROKEN:
            write_good(path, seconds, number)
        elif number % 2:
            write_broken_in_the_middle(path, 2.0, number)
        else:
            write_value(path, math.nan if number % 4 else math.inf, 0.4, seconds, number)
        paths.append(path)
    return paths


def stream(hybrid_file: Path, *arguments: object) -> int:
    return main(["stream", str(hybrid_file), *map(str, arguments), *CHOSEN])


@contextlib.contextmanager
def signal_at(model: Any, step: int, name: str) -> Iterator[None]:
    """Send a signal to this process in call number ``step`` of the encoder."""
    steps: list[int] = []

    def count(*_: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(getattr(signal, name))

    hook = model.encoder.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_of_32_streams_the_good_streams_have_the_text_of_their_single_runs(hybrid_file, recordings, tmp_path, capsys):
    out, alone = tmp_path / "out.jsonl", tmp_path / "alone.jsonl"
    assert stream(hybrid_file, *recordings, "--batch-size", 32, "--output", out) == 1
    assert "6 of 32 utterances could not be read:" in capsys.readouterr().err
    rows = read(out)
    assert [row["audio_filepath"] for row in rows] == [str(path) for path in recordings]
    assert [number for number, row in enumerate(rows) if "error" in row] == list(BROKEN)
    assert all(f"{number:02d}.wav" in rows[number]["error"] for number in BROKEN)
    good = [path for number, path in enumerate(recordings) if number not in BROKEN]
    assert stream(hybrid_file, *good, "--batch-size", 1, "--output", alone) == 0
    assert [row for row in rows if "error" not in row] == read(alone)


def test_of_32_streams_the_good_streams_have_the_encodings_of_their_single_runs(model, recordings):
    model.change_decoding_strategy(decoder_type="ctc", verbose=False)
    model.encoder.set_default_att_context_size([24, 3])
    utterances = read_files(recordings)

    def encodings(indices: list[int], slots: int) -> dict[int, torch.Tensor]:
        streams, found = Streams(model, slots), dict[int, list[torch.Tensor]]()
        player = Player(streams, lambda index: FileBlocks(utterances[index], RATE, "average"), indices, RATE, False)
        decode = streams.decoder.decode

        def recorded(at: list[int], encoded: torch.Tensor, lengths: torch.Tensor) -> Any:
            for slot, row, length in zip(at, encoded, lengths):
                found.setdefault(player.playing[slot].index, []).append(row[:, :length])
            return decode(at, encoded, lengths)

        streams.decoder.decode = recorded  # type: ignore[method-assign]
        for _ in player.play():
            pass
        return {index: torch.cat(parts, dim=1) for index, parts in found.items()}

    together = encodings(list(range(32)), 32)
    for number in sorted({*range(32)} - {*BROKEN}):
        torch.testing.assert_close(together[number], encodings([number], 1)[number], atol=1e-5, rtol=0)
    assert all(torch.isfinite(rows).all() for rows in together.values())


def test_a_stream_that_breaks_keeps_its_text_so_far(hybrid_file, tmp_path, capsys):
    sound = noise(2.0, 1)
    soundfile.write(tmp_path / "whole.wav", sound, RATE, subtype="FLOAT")
    sound[int(1.3 * RATE)] = math.nan
    soundfile.write(tmp_path / "broken.wav", sound, RATE, subtype="FLOAT")
    assert stream(hybrid_file, tmp_path / "whole.wav", tmp_path / "broken.wav", "--output", tmp_path / "out.jsonl") == 1
    whole, broken = read(tmp_path / "out.jsonl")
    assert "broken.wav' has the sample nan at 1.300 s" in broken["error"] and "error" not in whole
    assert 0 < len(broken["pred_text"]) < len(whole["pred_text"])
    assert whole["pred_text"].startswith(broken["pred_text"][:-2])
    out, err = capsys.readouterr()
    assert f"broken.wav\tfinal\t{broken['pred_text']}\n" in out and "1 of 2 utterances could not be read" in err


def test_without_audio_no_speed_is_printed(hybrid_file, tmp_path, capsys):
    broken = write_value(tmp_path / "a.wav", math.nan, at=0.0)
    assert main(["stream", str(hybrid_file), str(broken), "--chunk", "0.8"]) == 1
    err = capsys.readouterr().err
    assert "the sample nan at 0.000 s" in err and "real-time factor" not in err


def test_streams_that_cannot_be_opened_have_a_row_without_a_text(hybrid_file, tmp_path, capsys):
    good, bad = write_good(tmp_path / "good.wav"), write_no_header(tmp_path / "bad.wav")
    assert stream(hybrid_file, bad, good) == 1
    out, err = capsys.readouterr()
    assert "bad.wav" not in out and out.splitlines()[-1].startswith(f"{good}\tfinal\t") and "bad.wav" in err
    assert stream(hybrid_file, bad, good, "--output", tmp_path / "out.jsonl") == 1
    assert [sorted(row) for row in read(tmp_path / "out.jsonl")] == [
        ["audio_filepath", "error"],
        ["audio_filepath", "pred_text"],
    ]
    capsys.readouterr()
    assert stream(hybrid_file, bad, good, "--strict") == 2
    assert "1 of 2 audio files cannot be used" in capsys.readouterr().err


def test_a_file_that_disappears_before_its_stream_begins_is_an_error_of_this_stream(hybrid_file, tmp_path, model):
    paths = [write_good(tmp_path / f"{seed}.wav", 0.8, seed) for seed in range(3)]
    hook = model.encoder.register_forward_pre_hook(lambda *_: paths[1].unlink(missing_ok=True))
    try:
        assert stream(hybrid_file, *paths, "--batch-size", 1, "--output", tmp_path / "out.jsonl") == 1
    finally:
        hook.remove()
    assert ["error" in row for row in read(tmp_path / "out.jsonl")] == [False, True, False]


def test_rows_of_any_length_are_streamed(hybrid_file, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1.0), RATE)
    lengths = [1e-6, 1 / RATE, 0.005, 159 / RATE, 160 / RATE, 0.011, 0.7]
    rows = [{"audio_filepath": "a.wav", "offset": 0.2, "duration": length} for length in lengths]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for size in (1, 16):
        out = tmp_path / f"{size}.jsonl"
        assert stream(hybrid_file, tmp_path / "rows.jsonl", "--batch-size", size, "--output", out) == 0
        assert [row["pred_text"] for row in read(out)][:4] == [""] * 4 and read(out)[-1]["pred_text"]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_standard_input_keeps_its_text_after_a_signal(name, status, hybrid_file, model, tmp_path, monkeypatch, capsys):
    def pipe() -> SimpleNamespace:
        return SimpleNamespace(buffer=io.BytesIO((32767 * noise(2.0, 1)).astype("<i2").tobytes()))

    monkeypatch.setattr("sys.stdin", pipe())
    assert stream(hybrid_file, "-") == 0
    *_, whole = capsys.readouterr().out.splitlines()
    monkeypatch.setattr("sys.stdin", pipe())
    with signal_at(model, 14, name):
        assert stream(hybrid_file, "-", "--output", tmp_path / "out.jsonl") == status
    out, err = capsys.readouterr()
    final = out.splitlines()[-1]
    assert final.startswith("final\t") and len("final\t") < len(final) < len(whole) and whole.startswith(final[:-2])
    assert "interrupted: no more audio is read" in err
    assert json.loads((tmp_path / "out.jsonl.partial").read_text().splitlines()[1])["row"]["pred_text"] == final[6:]


def test_resumed_streams_have_the_rows_of_a_run_without_an_interruption(
    hybrid_file, model, recordings, tmp_path, capsys
):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    some = [*recordings[:12], write_no_header(tmp_path / "bad.wav")]
    assert stream(hybrid_file, *some, "--output", whole, "--batch-size", 2) == 1
    with signal_at(model, 40, "SIGTERM"):
        assert stream(hybrid_file, *some, "--output", out, "--batch-size", 2) == 143
    assert not out.exists()
    capsys.readouterr()
    assert stream(hybrid_file, *some, "--output", out, "--resume", "--batch-size", 3) == 1
    assert out.read_text() == whole.read_text()
    done = int(capsys.readouterr().err.split("--resume: ")[1].split()[0])
    assert 0 < done < 10
    assert stream(hybrid_file, "-", "--output", out, "--resume") == 2
    assert "standard input (-) cannot be read again" in capsys.readouterr().err
