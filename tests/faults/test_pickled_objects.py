"""Tests that no command executes an object in a file, and that the error names the file."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_squeezeformer import plain
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands import train as command
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.initial_weights import check
from nemo_squeezeformer.training.recipes import compose
from tests.samples.asr_models import asr_model, write_tokenizer
from tests.samples.model_types.model_type import SMALL
from tests.samples.speech import write_manifest
from tests.training.test_initial_weights import recipe
from tests.training.test_scale_resume import EVERY_STEP, GO_ON


class Command:
    """An object that creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    """The file that the object creates. Nothing in the environment permits objects in files."""
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    return tmp_path / "marker"


@pytest.fixture
def archive(ctc_file, marker, tmp_path) -> Path:
    """A .nemo file with an object among its weights."""
    with tarfile.open(ctc_file) as old, tarfile.open(tmp_path / "object.nemo", "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            data = content.read() if content else b""
            if member.name.endswith("model_weights.ckpt"):
                weights = torch.load(io.BytesIO(data), weights_only=True)
                changed = io.BytesIO()
                torch.save({**weights, "object": Command(marker)}, changed)
                data = changed.getvalue()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return tmp_path / "object.nemo"


def error_of(arguments: list[str], capsys) -> str:
    """Run a command that must end with a user error, and return the error line."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("nemo-squeezeformer: error:")]
    assert lines[-1] == line
    return line


def test_the_object_runs_where_objects_are_permitted(archive, marker, tmp_path):
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "out", filter="data")
    torch.load(tmp_path / "out" / "model_weights.ckpt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("name", ["transcribe", "stream", "export", "export safetensors", "info", "redundancy"])
def test_a_command_refuses_an_archive_with_an_object(name, archive, marker, tmp_path, noises, capsys):
    if name == "redundancy":
        pytest.importorskip("matplotlib")
    arguments = {
        "transcribe": ["transcribe", str(archive), noises[0]],
        "stream": ["stream", str(archive), noises[0]],
        "export": ["export", str(archive), "--output", str(tmp_path / "out.onnx")],
        "export safetensors": ["export", str(archive), "--format", "safetensors", "--output", str(tmp_path / "out")],
        "info": ["info", str(archive)],
        "redundancy": ["redundancy", str(archive), "--data", noises[0], "--output", str(tmp_path / "out.png")],
    }[name]
    error = error_of(arguments, capsys)
    assert f"{archive} contains a configuration or another object" in error
    assert not marker.exists()


def test_training_refuses_initial_weights_with_an_object(archive, marker, tmp_path):
    model = asr_model()
    with pytest.raises(UserError, match=r"init_from_nemo_model=.*object\.nemo: the file contains an object that can"):
        check(recipe(model, init_from_nemo_model=str(archive)), model)
    torch.save({"state_dict": {**model.state_dict(), "object": Command(marker)}}, tmp_path / "object.ckpt")
    with pytest.raises(UserError, match=r"init_from_ptl_ckpt=.*object\.ckpt: the file contains an object that can"):
        check(recipe(model, init_from_ptl_ckpt=str(tmp_path / "object.ckpt")), model)
    assert not marker.exists()


def test_a_damaged_archive_of_initial_weights_is_a_user_error(ctc_file, tmp_path):
    model, whole = asr_model(), ctc_file.read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        (tmp_path / "cut.nemo").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.nemo"):
            check(recipe(model, init_from_nemo_model=str(tmp_path / "cut.nemo")), model)


@pytest.mark.parametrize("resume", [[], pytest.param(["+resume=exact"], marks=pytest.mark.slow)])
def test_a_resumed_run_refuses_a_checkpoint_with_an_object(resume, marker, tmp_path, capsys):
    """An unchanged checkpoint, which contains the configuration of the model, is not refused.

    ``test_killed_training`` resumes runs with damaged checkpoints.
    """
    manifest = f"model.train_ds.manifest_filepath={write_manifest(tmp_path)}"
    given = [*SMALL, manifest, f"model.validation_ds.manifest_filepath={write_manifest(tmp_path, 2, name='dev')}"]
    given += [*EVERY_STEP, *GO_ON, *resume, f"exp_manager.exp_dir={tmp_path}/exp"]
    steps = [*given, "trainer.max_epochs=-1", "model.optim.sched.warmup_steps=1", "model.optim.sched.warmup_ratio=null"]
    command.train(compose("squeezeformer_ctc_char", [*steps, "trainer.max_steps=1"]))
    command.train(compose("squeezeformer_ctc_char", [*steps, "trainer.max_steps=2"]))
    (last,) = tmp_path.rglob("*-last.ckpt")
    saved = torch.load(last, weights_only=False)
    assert saved["global_step"] == 2 and "${squeezeformer." not in str(saved["hyper_parameters"])
    torch.save({**saved, "object": Command(marker)}, last)
    error = error_of(["train", "squeezeformer_ctc_char", *steps, "trainer.max_steps=3"], capsys)
    assert str(last) in error and "posix.system" in error and "so it is not loaded" in error
    assert not marker.exists()


def test_exact_resuming_checks_the_checkpoint_in_other_programs(marker, tmp_path):
    import lightning.pytorch as lightning
    from lightning.pytorch.demos.boring_classes import BoringModel

    from nemo_squeezeformer.integration.exact_resume import ExactResume

    trainer = lightning.Trainer(callbacks=[ExactResume()], logger=False, accelerator="cpu", enable_progress_bar=False)
    torch.save({"state_dict": {}, "object": Command(marker)}, tmp_path / "object.ckpt")
    trainer.ckpt_path = str(tmp_path / "object.ckpt")  # as NeMo's exp_manager does
    with pytest.raises(UserError, match=r"object\.ckpt contains objects that can run code"):
        trainer.fit(BoringModel())
    assert not marker.exists()


@pytest.mark.parametrize("write", [torch.save, lambda made, path: path.write_bytes(pickle.dumps(made))])
def test_weights_of_other_formats_with_an_object_are_refused(write, marker, tmp_path, capsys):
    pytest.importorskip("h5py")
    write({"object": Command(marker)}, tmp_path / "weights.h5")
    tokenizer = write_tokenizer(tmp_path / "tokenizer") / "tokenizer.model"
    given = [
        "import",
        str(tmp_path / "weights.h5"),
        "--tokenizer",
        str(tokenizer),
        "--output",
        str(tmp_path / "a.nemo"),
    ]
    assert f"{tmp_path / 'weights.h5'} is not an HDF5 file" in error_of(given, capsys)
    plain.save(asr_model(), tmp_path / "plain")
    write({"object": Command(marker)}, tmp_path / "plain" / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        plain.load(tmp_path / "plain")
    assert not marker.exists()
