"""`nemo-squeezeformer import`: a .nemo file that NeMo restores, transcribes with and trains, or an error."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import sentencepiece
import torch
import yaml
from nemo.utils import logging
from omegaconf import OmegaConf
from torch.testing import assert_close

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.analysis.sizes import sizes
from nemo_squeezeformer.commands import train as command_train
from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.training import initial_weights
from nemo_squeezeformer.training.recipes import compose

pytest.importorskip("h5py", reason="h5py, which reads the authors' files, is not installed")

from nemo_squeezeformer.checkpoints.tensorflow import read
from nemo_squeezeformer.commands.import_weights import description
from tests.samples import original_weights
from tests.samples.asr_models import write_tokenizer
from tests.samples.encoders import features
from tests.samples.speech import WORDS, write_manifest

PIECES = 23
SMALL = {"d_model": 16, "n_layers": 3, "n_heads": 2, "conv_kernel_size": 7, "vocabulary_size": PIECES}


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with weights.h5 and tokenizer.model."""
    folder = write_tokenizer(tmp_path_factory.mktemp("given"), PIECES)
    original_weights.write(folder / "weights.h5", split=True, **SMALL)
    return folder


@pytest.fixture(scope="module")
def imported(given, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("imported") / "model.nemo"
    assert main(command(given, path)) == 0
    return path


def command(given: Path, output: Path, *more: str) -> list[str]:
    weights, tokenizer = str(given / "weights.h5"), str(given / "tokenizer.model")
    return ["import", weights, "--tokenizer", tokenizer, "--output", str(output), *more]


@pytest.fixture(scope="module")
def model(imported):
    from nemo.collections.asr.models import ASRModel

    return ASRModel.restore_from(str(imported), map_location="cpu").eval()


def test_the_model_is_the_file_with_the_blank_moved_to_the_end(given, model):
    original = read(given / "weights.h5")
    assert type(model).__name__ == "EncDecCTCModelBPE" and model.tokenizer.vocab_size == PIECES
    assert_close(dict(model.encoder.state_dict()), original.encoder, rtol=0, atol=0)
    x, lengths = features(2, 57, 80), torch.tensor([57, 40])
    with torch.no_grad():
        encoded, encoded_lengths = model.encoder(audio_signal=x, length=lengths)
        ours = model.decoder(encoder_output=encoded)
    theirs = encoded.transpose(1, 2) @ original.logits_weight[:, :, 0].T + original.logits_bias
    assert encoded_lengths.tolist() == [15, 10]
    assert_close(torch.cat([ours[..., -1:], ours[..., 1:-1]], dim=-1), theirs.log_softmax(-1), atol=1e-5, rtol=0)
    assert ours[..., 0].max() < -9000


def test_the_file_is_complete_and_refers_to_no_other_file(given, imported):
    with tarfile.open(imported) as archive:
        held = {Path(name).name: archive.extractfile(name) for name in archive.getnames() if name != "."}
        text = held["model_config.yaml"].read().decode()
        (tokenizer,) = [file.read() for name, file in held.items() if name.endswith("_tokenizer.model")]
    assert tokenizer == (given / "tokenizer.model").read_bytes()
    assert not any(sign in text for sign in ("${", "???", str(given), str(imported.parent)))
    config = yaml.safe_load(text)
    recipe = compose("squeezeformer_ctc_bpe_original").model
    assert config["preprocessor"]["_target_"] == recipe.preprocessor._target_
    assert config["spec_augment"].items() >= {"freq_masks": 2, "freq_width": 27, "time_masks": 5}.items()
    assert config["encoder"].items() >= read(given / "weights.h5").settings.items()
    assert (config["encoder"]["variant"], config["encoder"]["dropout_att"]) == ("original", 0.0)
    assert config["encoder"].keys() == recipe.encoder.keys()


@pytest.mark.slow
def test_it_restores_in_a_fresh_process_and_transcribes_the_same(imported, model, tmp_path):
    write_manifest(tmp_path, utterances=2)
    paths = [str(path) for path in sorted(tmp_path.glob("*.wav"))]
    program = (
        "import sys, nemo_squeezeformer\n"
        "from nemo.collections.asr.models import ASRModel\n"
        "model = ASRModel.restore_from(sys.argv[1], map_location='cpu')\n"
        "for best in model.transcribe(sys.argv[2:], batch_size=2, verbose=False): print('text:', best.text)"
    )
    process = [sys.executable, "-c", program, str(imported), *paths]
    done = subprocess.run(process, capture_output=True, text=True, check=True)
    there = [line.removeprefix("text: ") for line in done.stdout.splitlines() if line.startswith("text: ")]
    here = [best.text for best in model.transcribe(paths, batch_size=2, verbose=False)]
    assert there == here and len("".join(here)) > 5


def test_the_imported_model_is_fine_tuned(imported, given, tmp_path, monkeypatch):
    """The file gives the network, the features and the tokenizer."""
    manifest, made = write_manifest(tmp_path, utterances=4), []
    monkeypatch.setattr(command_train, "train", lambda cfg, **checks: made.append(train(cfg, **checks)))
    run = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=1", "trainer.max_steps=2"]
    run += ["trainer.enable_progress_bar=false", "exp_manager.create_tensorboard_logger=false", "model.optim.lr=1e-3"]
    run += [f"model.{split}.num_workers=0" for split in ("train_ds", "validation_ds")]
    run += ["model.train_ds.batch_size=2", f"exp_manager.exp_dir={tmp_path}/exp"]
    data = [f"model.{split}.manifest_filepath={manifest}" for split in ("train_ds", "validation_ds")]
    assert main(["train", "--from", str(imported), *run, *data]) == 0
    (trained,) = made
    assert trained.trainer.global_step == 2 and float(trained.trainer.callback_metrics["train_loss"]) < 1000
    assert trained.cfg.encoder.variant == "original" and trained.tokenizer.vocab_size == PIECES
    start = read(given / "weights.h5").encoder["pre_ln.weight"]
    moved = (trained.encoder.pre_ln.weight - start).abs().max()
    assert 0 < moved < 0.01
    assert len(list((tmp_path / "exp").rglob("*.nemo"))) == 1


@pytest.mark.parametrize("variant, warned", [("nemo", True), ("original", False)])
def test_training_of_nemos_variant_from_the_imported_model_gives_a_warning(
    imported, model, monkeypatch, variant, warned
):
    said: list[str] = []
    monkeypatch.setattr(
        logging, "warning", said.append
    )  # works at every level of NeMo's logger, which other tests may have changed
    cfg = {"model": {"encoder": {"variant": variant}}, "init_from_nemo_model": str(imported)}
    initial_weights.check(OmegaConf.create(cfg), model)
    assert (
        any(
            "the encoder in this file has model.encoder.variant=original, but the model has nemo" in text
            for text in said
        )
        == warned
    )


@pytest.mark.parametrize("name", ["xs", "l"])
def test_a_published_size_is_called_by_its_name(given, name):
    size = sizes()[name]
    original = read(given / "weights.h5")
    original.settings.update(size.encoder, conv_kernel_size=31, subsampling_conv_channels=size.d_model)
    text = description(original, Path("my models/out.nemo"))
    assert f"Squeezeformer-{name.upper()}\n" in text and "train --from 'my models/out.nemo'" in text
    original.settings["conv_kernel_size"] = 15
    assert "not one of the published sizes" in description(original, Path("out.nemo"))


def test_the_imported_model_is_described(given, tmp_path, capsys):
    assert main(command(given, tmp_path / "out.nemo", "--time-reduce-idx", "0", "--time-recovery-idx", "1")) == 0
    said = capsys.readouterr().out
    encoder = read(given / "weights.h5", 0, 1)
    parameters = sum(weight.numel() for name, weight in encoder.encoder.items() if "running" not in name) - 3
    assert f"{parameters:,} parameters: 3 layers of width 16, 2 heads, kernel 7" in said
    assert "layers 0 to 0 at half the frame rate" in said and f"{PIECES} outputs" in said
    assert f"nemo-squeezeformer transcribe {tmp_path / 'out.nemo'}" in said


def test_mistakes_are_named_and_leave_no_file(given, tmp_path, capsys):
    def complaint(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        assert not list(tmp_path.rglob("*.nemo")) and not [path for path in tmp_path.iterdir() if path.is_dir()]
        return capsys.readouterr().err

    output = tmp_path / "out.nemo"
    plain = command(given, output)

    def with_tokenizer(path: Path) -> str:
        return complaint(*plain[:3], str(path), *plain[4:])

    assert "ends in .nemo" in complaint(*command(given, tmp_path / "out.onnx"))
    assert "there is no folder" in complaint(*command(given, tmp_path / "none" / "out.nemo"))
    assert "there is no file" in complaint(plain[0], str(tmp_path / "none.h5"), *plain[2:])
    assert "time_recovery_idx=7" in complaint(*plain, "--time-recovery-idx", "7")

    assert "cannot be read" in with_tokenizer(tmp_path / "none.model")
    (tmp_path / "broken.model").write_bytes(b"no SentencePiece")
    assert "broken.model is not a SentencePiece model" in with_tokenizer(tmp_path / "broken.model")
    (tmp_path / "broken.model").write_bytes(b"")
    assert "broken.model is not a SentencePiece model" in with_tokenizer(tmp_path / "broken.model")
    (tmp_path / "other.model").write_bytes(tokenizer_of(20))
    said = with_tokenizer(tmp_path / "other.model")
    assert "has 20 pieces" in said and f"has {PIECES} outputs" in said
    (tmp_path / "other.model").write_bytes(tokenizer_of(PIECES, unk_id=4))
    assert "piece 0 is" in with_tokenizer(tmp_path / "other.model")

    arrays = original_weights.arrays(**SMALL)
    removed = next(name for name in arrays if name.endswith("pos_bias_u:0"))
    del arrays[removed]
    original_weights.save(tmp_path / "weights.h5", arrays)
    assert f"weights.h5: {removed}: not in the file" in complaint(plain[0], str(tmp_path / "weights.h5"), *plain[2:])


def test_a_file_that_exists_is_kept_unless_forced(given, imported, tmp_path, capsys):
    output = tmp_path / "out.nemo"
    output.write_bytes(b"precious")
    assert main(command(given, output)) == 2 and "exists" in capsys.readouterr().err
    assert main([*command(given, output, "--force")[:-1], "--time-recovery-idx", "9", "--force"]) == 2
    assert output.read_bytes() == b"precious"
    assert main(command(given, output, "--force")) == 0
    assert tarfile.is_tarfile(output) and list(tmp_path.iterdir()) == [output]
    (tmp_path / "folder.nemo").mkdir()
    for options in ([], ["--force"]):
        assert main(command(given, tmp_path / "folder.nemo", *options)) == 2
        assert "folder.nemo is a folder; choose another name" in capsys.readouterr().err


def tokenizer_of(pieces: int, **settings: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_writer=model, vocab_size=pieces, minloglevel=2, **settings
    )
    return model.getvalue()
