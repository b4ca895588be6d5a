"""``transcribe``: NeMo's transcripts in the order of the input, which an interruption does not lose."""

import argparse
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.commands import transcribe
from nemo_squeezeformer.commands.rows import decoded_rows
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.speech import RATE, WORDS, noise

pytest.importorskip("nemo.collections.asr")

SECONDS = [0.9, 2.0, 0.5, 1.4, 1.1]
WIDTH = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """The .nemo files of a CTC model and a hybrid model with random weights and minimal configurations."""
    import sentencepiece
    import torch
    from nemo.collections.asr.models import EncDecCTCModelBPE, EncDecHybridRNNTCTCBPEModel
    from omegaconf import OmegaConf

    folder = tmp_path_factory.mktemp("models")
    pieces = {"vocab_size": 32, "model_type": "bpe", "bos_id": -1, "eos_id": -1, "minloglevel": 2}
    (folder / "text").write_text("\n".join(f"{a} {b}" for a in WORDS for b in WORDS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "tokenizer"), **pieces
    )
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    ctc_decoder = {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": WIDTH, "num_classes": -1}
    base = {
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": RATE,
            "features": 40,
            "dither": 0.0,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": "nemo_squeezeformer.SqueezeformerEncoder",
            "feat_in": 40,
            "n_layers": 4,
            "d_model": WIDTH,
            "n_heads": 2,
            "time_reduce_idx": 1,
            "time_recovery_idx": 3,
        },
        "tokenizer": {"dir": str(folder), "type": "bpe"},
        "optim": {"name": "adamw", "lr": 1e-3},
    }
    ctc = {"decoder": {**ctc_decoder, "vocabulary": []}}
    hybrid = {
        "model_defaults": {"enc_hidden": WIDTH, "pred_hidden": WIDTH, "joint_hidden": WIDTH},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "prednet": {"pred_hidden": WIDTH, "pred_rnn_layers": 1},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "fuse_loss_wer": False,
            "jointnet": {"joint_hidden": WIDTH, "activation": "relu", "encoder_hidden": WIDTH, "pred_hidden": WIDTH},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 1}},
        "loss": {"loss_name": "default"},
        "aux_ctc": {"ctc_loss_weight": 0.3, "decoding": {"strategy": "greedy"}, **ctc},
    }
    paths = {}
    for name, kind, more in [("ctc", EncDecCTCModelBPE, ctc), ("hybrid", EncDecHybridRNNTCTCBPEModel, hybrid)]:
        torch.manual_seed(1)
        model = kind(cfg=OmegaConf.create({**base, **more}))
        for parameter in model.encoder.layers.parameters():
            parameter.data.mul_(1.0 if parameter.dim() == 1 else 3.0)  # otherwise all utterances have the same text
        paths[name] = folder / f"{name}.nemo"
        model.save_to(str(paths[name]))
    return paths


@pytest.fixture
def manifest(write_rows) -> Path:
    """A manifest of five utterances of different lengths, the longest not first, and of a part of one of them."""
    whole = [{"duration": d, "text": WORDS[number], "speaker": number} for number, d in enumerate(SECONDS)]
    return write_rows(whole, {"audio_filepath": "1.wav", "offset": 0.5, "duration": 1.0, "text": "part"})


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    transcribe.add_arguments(parser)
    return transcribe.main(parser.parse_args([*map(str, arguments), "--device", "cpu"]))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def nemo_transcripts(model: Path, files: list[str], decoder: str | None, **options) -> list:
    """Return the output of NeMo's own transcribe() for each file, with batch size 1."""
    from nemo.collections.asr.models import ASRModel
    from omegaconf import open_dict

    restored = ASRModel.restore_from(str(model), map_location="cpu")
    with open_dict(restored.cfg):
        # Without these keys NeMo raises an error, although it does not need their values.
        restored.cfg.validation_ds = {}
        restored.cfg.preprocessor.window_stride = 0.01
    if decoder:
        restored.change_decoding_strategy(decoder_type=decoder, verbose=False)
    found = restored.transcribe(files, batch_size=1, verbose=False, **options)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize(("kind", "decoder"), [("ctc", None), ("hybrid", None), ("hybrid", "ctc")])
def test_transcripts_are_nemos_own_in_the_order_of_the_input(models, manifest, kind, decoder):
    out = manifest.parent / "out.jsonl"
    options = ["--decoder", decoder] if decoder else []
    assert command(models[kind], manifest, "--output", out, "--batch-size", 2, "--timestamps", *options) == 0
    rows = read(out)
    written = [{name: row[name] for name in row if name not in ("pred_text", "timestamps")} for row in rows]
    assert written == read(manifest)
    assert not list(manifest.parent.glob("out.jsonl.*"))
    files = [str(manifest.parent / f"{number}.wav") for number in range(len(SECONDS))]
    expected = nemo_transcripts(models[kind], files, decoder, timestamps=True)
    assert len({hypothesis.text for hypothesis in expected}) == len(
        SECONDS
    )  # otherwise the test could not check the order
    for row, hypothesis in zip(rows, expected):
        assert row["pred_text"] == hypothesis.text
        words = [(word["word"], word["start"], word["end"]) for word in row["timestamps"]["word"]]
        assert words == [(w["word"], round(w["start"], 3), round(w["end"], 3)) for w in hypothesis.timestamp["word"]]


def test_a_row_with_an_offset_is_transcribed_from_its_offset(models, manifest):
    soundfile.write(manifest.parent / "part.wav", noise(SECONDS[1], 1)[RATE // 2 : RATE * 3 // 2], RATE)
    out = manifest.parent / "out.jsonl"
    command(models["ctc"], manifest, manifest.parent / "part.wav", "--output", out)
    rows = read(out)
    assert rows[-1]["pred_text"] == rows[-2]["pred_text"] != rows[1]["pred_text"]


def test_without_output_stdout_has_a_line_for_each_file_and_nothing_else(models, manifest, capfd):
    folder, single = manifest.parent, manifest.parent / "3.wav"
    (folder / "below").mkdir()
    soundfile.write(folder / "below/a.FLAC", noise(0.6), RATE, format="FLAC")
    (folder / "below/notes.txt").write_text("not audio")
    assert command(models["ctc"], single, folder / "below", single) == 0
    out, err = capfd.readouterr()
    paths, texts = zip(*(line.split("\t") for line in out.splitlines()))
    assert paths == (str(single), str(folder / "below/a.FLAC"), str(single))
    assert texts[0] == texts[2] != texts[1]
    assert "RTFx" in err and "WER" not in err and "[NeMo" not in err


def test_the_first_utterances_are_prepared_before_the_time_is_measured(monkeypatch):
    prepared = []

    def prepare(model, config, utterances, *_):
        prepared.append(utterances)
        return iter([utterances])

    monkeypatch.setattr("nemo_squeezeformer.transcription.hypotheses.decode", prepare)
    monkeypatch.setattr("nemo_squeezeformer.transcription.pauses.cut_recordings.decode_cut", prepare)
    monkeypatch.setattr(decoded_rows.cut_options, "is_cut", lambda args, utterance: utterance == "long")
    args = argparse.Namespace(batch_size=2, channel=0, longest=20.0, confidence=False)
    batches = decoded_rows._decoded(None, None, ["long", "long", "short", "long"], 0, args)
    groups = [["long", "long"], ["short"], ["long"]]
    assert prepared == groups[:1]
    assert next(batches) == groups[0] and prepared == groups[:1]
    assert [*batches] == groups[1:] and prepared == groups
    assert [*decoded_rows._decoded(None, None, [], 0, args)] == []


def test_the_word_error_rate_counts_the_rows_with_a_text(models, manifest, capsys):
    out, again = manifest.parent / "out.jsonl", manifest.parent / "again.jsonl"
    command(models["ctc"], manifest, "--output", out)
    capsys.readouterr()
    rows = [{**row, "text": row["pred_text"]} for row in read(out)]
    right = sum(len(row["text"].split()) for row in rows[1:])
    rows[0]["text"] = "word " * right  # half of all words; no word of them is in the transcript
    again.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command(models["ctc"], again)
    assert f"of {2 * right} words" in (err := capsys.readouterr().err)
    assert 50.0 <= float(err.split("WER ")[1].split("%")[0]) < 100.0


def test_several_channels_are_averaged_or_one_channel_is_chosen(models, manifest, capsys):
    folder = manifest.parent
    left, right = noise(1.0, 8), noise(1.0, 9)
    # The samples are floats: with 16 bits the average would be rounded again, which could change a transcript.
    for name, samples in [("left", left), ("mean", (left + right) / 2), ("both", np.stack([left, right], 1))]:
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    names = [folder / "left.wav", folder / "mean.wav", folder / "both.wav"]
    command(models["ctc"], *names)
    out, err = capsys.readouterr()
    left_text, mean_text, both_text = (line.split("\t")[1] for line in out.splitlines())
    assert both_text == mean_text != left_text
    assert "1 of 3 utterances have several channels: their average" in err
    command(models["ctc"], names[2], "--channel", 0)
    assert capsys.readouterr().out.split("\t")[1].strip() == left_text
    with pytest.raises(UserError, match="--channel 2: .*both.wav has only 2 channels"):
        command(models["ctc"], names[2], "--channel", 2)


def test_an_interrupted_run_keeps_the_finished_transcripts(models, manifest, monkeypatch):
    def load_with_a_key_press(*arguments):
        model, calls = load_model(*arguments), []

        def press(*_):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt

        model.encoder.register_forward_pre_hook(press)
        return model

    monkeypatch.setattr("nemo_squeezeformer.transcription.models.load_model", load_with_a_key_press)
    out = manifest.parent / "out.jsonl"
    with pytest.raises(KeyboardInterrupt, match="4 of 6 utterances are done: .*--resume"):
        command(models["ctc"], manifest, "--output", out, "--batch-size", 2)
    assert not out.exists()
    _, *kept = read(manifest.parent / "out.jsonl.partial")
    # Two batches of two utterances, the longest utterances first.
    assert [line["row"]["audio_filepath"] for line in kept] == ["1.wav", "3.wav", "4.wav", "1.wav"]
    assert [line["index"] for line in kept] == [1, 3, 4, 5]
    assert all("pred_text" in line["row"] for line in kept)
    monkeypatch.undo()
    with pytest.raises(UserError, match="out.jsonl.partial exists.*--resume.*--force"):
        command(models["ctc"], manifest, "--output", out)
    assert command(models["ctc"], manifest, "--output", out, "--force") == 0
    assert len(read(out)) == 6


def test_nothing_is_overwritten_unasked(models, manifest):
    out = manifest.parent / "out.jsonl"
    out.write_text("dear\n")
    with pytest.raises(UserError, match="out.jsonl exists.*--force"):
        command(models["ctc"], manifest, "--output", out)
    with pytest.raises(UserError, match="rows.jsonl is also an input"):
        command(models["ctc"], manifest, "--output", manifest, "--force")
    with pytest.raises(UserError, match="there is no folder"):
        command(models["ctc"], manifest, "--output", manifest.parent / "gone/out.jsonl")
    assert out.read_text() == "dear\n"


def test_mistakes_in_the_input_are_found_before_the_model_is_opened(manifest):
    unreadable = manifest.parent / "model.nemo"
    with tarfile.open(unreadable, "w") as archive:  # the files of a model, but empty, so that it cannot be restored
        for name in ("model_config.yaml", "model_weights.ckpt"):
            archive.addfile(tarfile.TarInfo(name))
    with manifest.open("a") as rows:
        rows.write('{"audio_filepath": "gone.wav"}\n')
    with pytest.raises(UserError, match="rows.jsonl: 1 of 7 rows cannot be used\n  line 7: .*gone.wav"):
        command(unreadable, manifest, "--strict")
    with pytest.raises(UserError, match="1 of 2 audio files cannot be used\n.*nowhere.wav"):
        command(unreadable, manifest.parent / "0.wav", manifest.parent / "nowhere.wav", "--strict")
    with pytest.raises(UserError, match="1 of 1 utterances cannot be used:\n.*nowhere.wav"):
        command(unreadable, manifest.parent / "nowhere.wav")
    (manifest.parent / "empty").mkdir()
    with pytest.raises(UserError, match="no audio in the folder .*empty"):
        command(unreadable, manifest.parent / "empty")


@pytest.mark.parametrize("name", ["gone.nemo", "rows.jsonl", "."])
def test_a_path_that_is_not_a_model_is_named(manifest, monkeypatch, name):
    monkeypatch.chdir(manifest.parent)
    with pytest.raises(UserError, match="no model file|not a NeMo archive"):
        command(name, manifest)


def test_a_decoder_or_prompt_that_the_model_lacks_is_named(models, manifest):
    with pytest.raises(UserError, match="--decoder rnnt.*EncDecCTCModelBPE"):
        command(models["ctc"], manifest, "--decoder", "rnnt")
    with pytest.raises(UserError, match="--prompt.*EncDecCTCModelBPE"):
        command(models["ctc"], manifest, "--prompt", "target_lang=de")
