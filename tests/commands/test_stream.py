"""``stream``: its text for files, manifests and standard input, and its errors."""

from __future__ import annotations

import argparse
import io
import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.commands import stream
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.models import load_model

pytest.importorskip("nemo.collections.asr")
import torch

from tests.samples.speech import RATE, SECONDS, noise
from tests.samples.streams import whole_texts


@pytest.fixture(scope="module")
def model(streaming_hybrid):
    return streaming_hybrid


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture
def manifest(write_rows) -> Path:
    """A manifest of utterances of different lengths, and of the middle of one utterance."""
    whole = [{"duration": seconds, "text": f"zero {number}"} for number, seconds in enumerate(SECONDS)]
    return write_rows(whole, {"audio_filepath": "1.wav", "offset": 0.5, "duration": 1.0})


@pytest.fixture
def restored_once(monkeypatch, loaded):
    """Restore the model only once, because this takes longer than the rest of these tests."""
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", lambda *_: loaded)


@pytest.fixture(scope="module")
def loaded(archive):
    return load_model(str(archive), torch.device("cpu"))


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    stream.add_arguments(parser)
    return stream.main(parser.parse_args([*map(str, arguments), "--device", "cpu"]))


def finals(out: str) -> dict[str, str]:
    rows = [line.split("\t") for line in out.splitlines()]
    return {Path(name).name: text for name, kind, text in rows if kind == "final"}


def test_a_manifest_gives_texts_in_its_order_and_its_word_errors(model, archive, manifest, capsys):
    out = manifest.parent / "out.jsonl"
    sounds = [noise(seconds, number) for number, seconds in enumerate(SECONDS)]
    sounds.append(sounds[1][RATE // 2 : RATE * 3 // 2])
    assert command(archive, manifest, "--latency", 160, "--decoder", "ctc", "--batch-size", 2, "--output", out) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["pred_text"] for row in rows] == whole_texts(model, sounds, "ctc", [24, 3])
    written = [{key: value for key, value in row.items() if key != "pred_text"} for row in rows]
    assert written == [json.loads(line) for line in manifest.read_text().splitlines()]
    assert list(manifest.parent.glob("out.jsonl*")) == [out]
    err = capsys.readouterr().err
    assert "WER" in err and "5 utterances with text" in err and "of 10 words" in err
    assert "latency 160 ms (att_context_size [24, 3]), streams at once: 2" in err
    assert "real-time factor" in err and "compute per chunk: median" in err and "[NeMo" not in err


@pytest.mark.usefixtures("restored_once")
def test_partial_texts_come_before_the_final_text_and_grow(model, archive, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", noise(2.0, 1), RATE)
    assert command(archive, tmp_path / "a.wav", "--att-context-size", "[24, 1]", "--decoder", "ctc") == 0
    *partial, final = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert final == ["final", whole_texts(model, [noise(2.0, 1)], "ctc", [24, 1])[0]]
    assert len(partial) > 5
    times, texts = zip(*((float(at), text) for at, text in partial))
    assert list(times) == sorted(times) and 0 < times[0] < 1.0 and times[-1] <= 2.0
    assert all(final[1].startswith(text) for text in texts) and len(set(texts)) == len(texts)


@pytest.mark.usefixtures("restored_once")
def test_a_terminal_has_one_line_that_is_updated(archive, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "20")
    soundfile.write(tmp_path / "a.wav", noise(2.0, 1), RATE)
    command(archive, tmp_path / "a.wav", "--latency", 160, "--decoder", "rnnt")
    *updates, last = terminal.getvalue().split("\r\x1b[K")[1:]
    assert len(updates) > 2 and all(len(line) < 20 and "\n" not in line for line in updates)
    assert last.endswith("\n") and len(last) > 20 and updates[-1].startswith("…")


@pytest.mark.usefixtures("restored_once")
@pytest.mark.parametrize("decoder", ["ctc", "rnnt"])
def test_words_and_utterances_have_times_and_the_texts_do_not_change(archive, tmp_path, capsys, decoder):
    for seed in (1, 2):
        pause = np.zeros(int(1.5 * RATE), np.float32)
        soundfile.write(tmp_path / f"{seed}.wav", np.concatenate([noise(1.2, seed), pause, noise(0.9, seed)]), RATE)
    chosen = [archive, tmp_path / "1.wav", tmp_path / "2.wav", "--latency", 160, "--decoder", decoder]
    assert command(*chosen) == 0
    plain = capsys.readouterr().out.splitlines()
    out = tmp_path / "out.jsonl"
    assert command(*chosen, "--timestamps", "--endpoint", 0.4, "--output", out) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    timed = [line for line in lines if line.split("\t")[1] in ("word", "utterance")]
    assert [line for line in lines if line not in timed] == plain
    for row in rows:
        words, utterances = row["timestamps"]["word"], row["timestamps"]["utterance"]
        texts = [word["word"] for word in words]
        assert "".join(texts) == row["pred_text"].replace(" ", "")
        assert texts == " ".join(utterance["utterance"] for utterance in utterances).split()
        times = [time for word in words for time in (word["start"], word["end"])]
        assert all(0 <= time <= 3.6 for time in times) and times[::2] == sorted(times[::2])
        printed = [line.split("\t")[1:] for line in timed if line.startswith(row["audio_filepath"])]
        for kind, found in (("word", words), ("utterance", utterances)):
            expected = [[kind, f"{it['start']:.2f}", f"{it['end']:.2f}", it[kind]] for it in found]
            assert [line for line in printed if line[0] == kind] == expected


def pcm(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.usefixtures("restored_once")
def test_standard_input_gives_the_text_of_the_same_file(archive, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "a.wav", noise(1.3, 1), RATE, subtype="PCM_16")
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    chosen = ["--latency", 160, "--decoder", "ctc"]
    command(archive, tmp_path / "a.wav", *chosen)
    expected = capsys.readouterr().out
    pcm(monkeypatch, samples.astype("<i2").tobytes())
    assert command(archive, "-", *chosen) == 0
    assert capsys.readouterr().out == expected and "final\t" in expected

    pcm(monkeypatch, samples.astype("<i2").tobytes() + b"x")
    with pytest.raises(UserError, match=f"after {2 * len(samples) + 1} bytes: 16-bit samples have two"):
        command(archive, "-", *chosen)
    assert capsys.readouterr().out == expected  # the text before the error is printed
    pcm(monkeypatch, (tmp_path / "a.wav").read_bytes())
    with pytest.raises(UserError, match="is a WAV file.*ffmpeg"):
        command(archive, "-", *chosen)
    pcm(monkeypatch, b"")
    with pytest.raises(UserError, match="no audio"):
        command(archive, "-", *chosen)


@pytest.mark.usefixtures("restored_once")
def test_several_channels_are_averaged_or_one_channel_is_chosen(archive, tmp_path, capsys):
    left, right = noise(1.0, 8), noise(1.0, 9)
    for name, samples in [("left", left), ("mean", (left + right) / 2), ("both", np.stack([left, right], 1))]:
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
    chosen = ["--latency", 480, "--decoder", "ctc"]
    command(archive, *(tmp_path / f"{name}.wav" for name in ("left", "mean", "both")), *chosen)
    out, err = capsys.readouterr()
    found = finals(out)
    assert found["both.wav"] == found["mean.wav"] != found["left.wav"]
    assert "1 of 3 utterances have several channels: their average" in err
    command(archive, tmp_path / "both.wav", "--channel", 0, *chosen)
    assert capsys.readouterr().out.splitlines()[-1] == f"final\t{found['left.wav']}"


@pytest.mark.usefixtures("restored_once")
def test_in_real_time_audio_takes_as_long_as_it_plays(archive, tmp_path, capsys):
    chosen = ["--latency", 160, "--decoder", "ctc"]
    soundfile.write(tmp_path / "a.wav", noise(0.9, 1), RATE)
    start = time.perf_counter()
    command(archive, tmp_path / "a.wav", *chosen, "--real-time")
    seconds = time.perf_counter() - start
    out, err = capsys.readouterr()
    assert seconds > 0.9 and "last sample of a chunk to its text: median" in err
    command(archive, tmp_path / "a.wav", *chosen)
    quick, err = capsys.readouterr()
    assert quick == out and "last sample" not in err


@pytest.mark.usefixtures("restored_once")
def test_ctrl_c_ends_with_the_text_so_far(model, loaded, archive, manifest, capsys):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background ignores Ctrl-C
    calls = []

    def press(*_):
        calls.append(1)
        if len(calls) == 12:  # the first 7 steps are the warm-up with silence
            signal.raise_signal(signal.SIGINT)

    hook = loaded.encoder.register_forward_pre_hook(press)
    out = manifest.parent / "out.jsonl"
    with pytest.raises(KeyboardInterrupt, match="0 of 6 utterances are done: .*--resume"):
        command(archive, manifest, "--latency", 160, "--decoder", "ctc", "--batch-size", 1, "--output", out)
    hook.remove()
    printed, err = capsys.readouterr()
    [(name, text)] = finals(printed).items()
    expected = whole_texts(model, [noise(0.9, 0)], "ctc", [24, 3])[0]
    assert name == "0.wav" and "interrupted" in err
    assert text and expected.startswith(text[:-1]) and len(text) < len(expected)
    assert not out.exists()
    _, line = (manifest.parent / "out.jsonl.partial").read_text().splitlines()
    assert json.loads(line)["row"]["pred_text"] == text


def test_mistakes_are_named_with_their_remedy(archive, manifest, tmp_path):
    wav = tmp_path / "0.wav"
    (tmp_path / "none.wav").write_bytes(b"")
    with pytest.raises(UserError, match="none.wav' is empty"):
        command(archive, tmp_path / "none.wav")
    with pytest.raises(UserError, match=r"--latency 100: choose a latency of the model, .*: 80 \(\[24, 1\]\), 160 .*"):
        command(archive, wav, "--latency", 100)
    with pytest.raises(UserError, match=r"att_context_size=\[-1, -1\].*buffered inference"):
        command(archive, wav, "--att-context-size", "[-1, -1]")
    with pytest.raises(UserError, match="the window is shorter than the latency of 4 s; pass a longer --window"):
        command(archive, wav, "--window", 3)
    with pytest.raises(UserError, match="a chunk of 2.96 s with a latency of 2.96 s has no audio after the chunk"):
        command(archive, wav, "--chunk", 2.96, "--latency", 2960)
    with pytest.raises(UserError, match="-.* cannot be combined with other inputs"):
        command(archive, "-", wav)
    with pytest.raises(UserError, match="--sample-rate 8000 is for standard input"):
        command(archive, wav, "--sample-rate", 8000)
    for wrong in (["--att-context-size", "156"], ["--endpoint", "0"], ["--window", "-1"], ["--chunk", "nan"]):
        with pytest.raises(SystemExit):
            command(archive, wav, *wrong)
