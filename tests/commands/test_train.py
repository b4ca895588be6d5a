"""`nemo-squeezeformer train` on the command line, and the training scripts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands.tokenizer import train_tokenizer
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.resuming.checkpoint_contents import read_data
from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types.model_type import SMALL
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest


def data(folder) -> list[str]:
    train_set, dev_set = write_manifest(folder), write_manifest(folder, utterances=2, name="dev")
    return [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]


def test_list_names_every_recipe_and_size(capsys):
    assert main(["train", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "squeezeformer_ctc_bpe" in shown and "size=ml" in shown and "9.0 M" in shown


def test_print_shows_the_recipe_and_its_schedule_without_training(tmp_path, capsys):
    assert main(["train", "--print", "squeezeformer_ctc_char", *SMALL, *data(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "d_model: 32" in shown and "for a global batch of 2 (model.train_ds.batch_size=2 x 1 processes" in shown
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no recipe is given"),
        (["squeezeformer_ctc_char"], "model.train_ds.manifest_filepath is not set"),
        (["squeezeformer_ctc_char", "--device", "cuda:1"], "a setting: trainer.accelerator=cuda trainer.devices=[1]"),
        (["squeezeformer_ssl", "~model_target", "model.train_ds=null"], "does not say which model"),
    ],
)
def test_mistakes_end_in_one_line_and_status_2(arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_model_class_that_this_nemo_does_not_have_is_named():
    cfg = compose("squeezeformer_ctc_char", ["model_target=nemo.collections.asr.models.NoSuchModel"])
    with pytest.raises(UserError, match="model_target=nemo.collections.asr.models.NoSuchModel: this NeMo does not"):
        build(cfg)


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_train_together(tmp_path):
    arguments = [*SMALL, *data(tmp_path), "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=localhost:0", "-m", "nemo_squeezeformer", "train", "squeezeformer_ctc_char"]
    done = subprocess.run(
        [*launcher, *arguments, f"exp_manager.exp_dir={tmp_path}/exp"], capture_output=True, text=True
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-3000:]
    assert "MEMBER: 2/2" in shown and shown.count("learning-rate schedule") == 1
    assert len(list((tmp_path / "exp").rglob("*.nemo"))) == 1


@pytest.mark.slow
def test_two_processes_train_together_show_the_schedule_once_and_save_the_best_weights(tmp_path):
    arguments = [*SMALL, *data(tmp_path), "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=2"]
    # The loss falls, so the highest loss chooses the first checkpoint and not the last.
    arguments += [f"exp_manager.checkpoint_callback_params.{each}" for each in ("monitor=val_loss", "mode=max")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "nemo_squeezeformer",
            "train",
            "squeezeformer_ctc_char",
            *arguments,
            f"exp_manager.exp_dir={tmp_path}/exp",
        ],
        capture_output=True,
        text=True,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-3000:]
    assert "MEMBER: 2/2" in shown
    assert "2 x 2 processes" in shown.replace("batch_size=", "") and "effective maximum steps = 4)" in shown
    assert shown.count("learning-rate schedule") == 1
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    best = re.findall(r"[.]nemo has the weights of (.+[.]ckpt)", shown)[-1]
    (checkpoint,) = (tmp_path / "exp").rglob(best)
    assert "-step=2." in best
    weights = ASRModel.restore_from(str(saved), map_location="cpu").state_dict()
    expected = read_data(str(checkpoint))["state_dict"]
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def run_script(name: str, folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    file = ROOT / "scripts" / name
    command = [sys.executable, str(file), *SMALL, *data(folder), *overrides]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.slow
def test_the_sub_word_script_trains(tmp_path):
    write_manifest(tmp_path)
    train_tokenizer([str(tmp_path / "train.json")], 24, str(tmp_path / "tokenizer"))
    done = run_script("speech_to_text_ctc_bpe.py", tmp_path, "model.tokenizer.dir=tokenizer", "trainer.max_steps=1")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert len(list((tmp_path / "nemo_experiments").rglob("*.nemo"))) == 1


@pytest.mark.slow
def test_the_character_script_reports_mistakes_without_a_traceback(tmp_path):
    done = run_script("speech_to_text_ctc_char.py", tmp_path, "model.test_ds.manifest_filepath=/not/test.json")
    assert done.returncode == 1
    assert "there is no file /not/test.json" in done.stderr and "Traceback" not in done.stderr
