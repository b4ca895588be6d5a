"""Tests that data with problems does not reach the weights, and that training names the recordings."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch import Callback

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands import train as command
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.callbacks import bad_data, finite_steps, usable_recordings
from nemo_squeezeformer.integration.resuming.checkpoint_contents import require_finite
from nemo_squeezeformer.training import initial_weights
from nemo_squeezeformer.training.recipes import compose
from tests.samples.asr_models import asr_model
from tests.samples.model_types.model_type import SMALL
from tests.samples.speech import RATE, write_manifest
from tests.training.test_initial_weights import recipe

LHOTSE = ["data=lhotse", "model.train_ds.num_buckets=2", "trainer.max_epochs=-1", "trainer.max_steps=6"]
LHOTSE += ["trainer.val_check_interval=3", "model.train_ds.shuffle_buffer_size=8"]


def spoil(path: Path, problem: str) -> None:
    samples, _ = soundfile.read(path, dtype="float32")
    if problem == "nan":
        samples[5000] = np.nan
    elif problem == "infinity":
        samples[5000] = -np.inf
    elif problem == "silence":
        samples[:] = 0
    elif problem == "missing end":
        samples = samples[: len(samples) // 3]
    elif problem == "broken":
        path.write_bytes(b"RIFF")
        return
    elif problem == "broken in its middle":
        break_flac(path)
        return
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def break_flac(path: Path) -> None:
    """Replace a recording with a FLAC file whose middle is overwritten."""
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples, RATE, format="FLAC")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = b"\xff" * 300
    path.write_bytes(data)


REASONS = {
    "nan": "not finite",
    "infinity": "not finite",
    "silence": "silent",
    "missing end": "ends after 0.33 s of 1.00 s",
    "broken": "Error opening",
    "broken in its middle": "",
}


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """The warnings about steps and recordings."""
    shown: list[str] = []
    for module in (finite_steps, usable_recordings):
        monkeypatch.setattr(module.logging, "warning", lambda text, *_, **__: shown.append(str(text)))
    return shown


def settings(folder: Path) -> list[str]:
    train_set, dev_set = write_manifest(folder), write_manifest(folder, utterances=2, name="dev")
    given = [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]
    return [*SMALL, *given, f"exp_manager.exp_dir={folder}/exp", "trainer.max_epochs=1"]


def train(*overrides: str, callbacks: list[Callback] | None = None, monkeypatch=None):
    torch.manual_seed(0)
    cfg = compose("squeezeformer_ctc_char", list(overrides))
    if callbacks is None:
        return command.train(cfg, audio_check=False)
    whole = lightning.Trainer
    with monkeypatch.context() as patch:
        patch.setattr(lightning, "Trainer", lambda **config: whole(**{**config, "callbacks": callbacks}))
        return command.train(cfg, audio_check=False)


def assert_finite(model) -> None:
    assert [name for name, value in model.state_dict().items() if not value.isfinite().all()] == []


SLOW = pytest.mark.slow
FIRST = ("nan", "broken in its middle")


@pytest.mark.parametrize("problem", [pytest.param(one, marks=[] if one in FIRST else SLOW) for one in REASONS])
def test_a_recording_with_a_problem_is_left_out_and_named_once(problem, tmp_path, warnings):
    given = settings(tmp_path)
    bad = tmp_path / "train_3.wav"
    spoil(bad, problem)
    model = train(*given, "trainer.max_epochs=2")
    assert_finite(model)
    assert model.trainer.global_step == 8
    (warning,) = [text for text in warnings if "is left out" in text]
    assert warning.startswith(f"{bad} is left out: ") and REASONS[problem] in warning
    assert not any("is skipped" in text for text in warnings)


def test_the_batch_continues_without_the_recording(tmp_path, warnings):
    given = [*settings(tmp_path), "model.train_ds.batch_size=8"]
    spoil(tmp_path / "train_3.wav", "nan")
    sizes, files = [], []

    class Sizes(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            sizes.append(len(batch[0]))
            files.extend(batch.names.files)

    with pytest.MonkeyPatch.context() as patch:
        train(*given, callbacks=[Sizes()], monkeypatch=patch)
    assert sizes == [7]
    assert sorted(files) == [str(tmp_path / f"train_{i}.wav") for i in range(8) if i != 3]


@pytest.mark.slow
def test_workers_leave_out_a_recording_and_name_it(tmp_path, warnings):
    given = [*settings(tmp_path), "model.train_ds.num_workers=2", "model.validation_ds.num_workers=1"]
    spoil(tmp_path / "train_3.wav", "broken")
    break_flac(tmp_path / "dev_1.wav")
    assert_finite(train(*given))
    assert {text.split()[0] for text in warnings if "is left out" in text} == {
        str(tmp_path / "train_3.wav"),
        str(tmp_path / "dev_1.wav"),
    }


@pytest.mark.parametrize("problem", ["nan", pytest.param("broken in its middle", marks=SLOW)])
def test_lhotse_leaves_out_a_recording_and_names_it(problem, tmp_path, warnings):
    given = [*settings(tmp_path), *LHOTSE]
    spoil(tmp_path / "train_3.wav", problem)
    model = train(*given)
    assert_finite(model)
    assert model.trainer.global_step == 6
    assert [text.split()[0] for text in warnings if "is left out" in text] == [str(tmp_path / "train_3.wav")]


def test_a_recording_in_a_tar_file_is_left_out_and_named(tmp_path, warnings):
    given = settings(tmp_path)
    spoil(tmp_path / "train_3.wav", "nan")
    rows = [json.loads(line) for line in (tmp_path / "train.json").read_text().splitlines()]
    with tarfile.open(tmp_path / "audio_0.tar", "w") as archive:
        for row in rows:
            data = (tmp_path / row["audio_filepath"]).read_bytes()
            member = tarfile.TarInfo(row["audio_filepath"])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    given += ["data=tarred", f"model.train_ds.tarred_audio_filepaths={tmp_path}/audio_0.tar"]
    assert_finite(train(*given, "model.train_ds.shuffle_n=4"))
    (warning,) = [text for text in warnings if "is left out" in text]
    assert warning.startswith("train_3") and "not finite" in warning


class Spoil(Callback):
    """Make the loss or the gradients of chosen batches NaN."""

    def __init__(self, batches: list[int], gradients: bool = False):
        self.batches, self.gradients, self.index = batches, gradients, 0
        self.states: list[list[torch.Tensor]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.index = batch_idx
        self.states.append(state_of(trainer, pl_module))
        if batch_idx in self.batches and not self.gradients:
            batch[0][0, 100] = float("nan")

    def on_after_backward(self, trainer, pl_module):
        if self.index in self.batches and self.gradients:
            next(pl_module.encoder.parameters()).grad.view(-1)[0] = float("inf")

    def on_train_end(self, trainer, pl_module):
        self.states.append(state_of(trainer, pl_module))


def state_of(trainer, model) -> list[torch.Tensor]:
    """Return copies of the weights, the statistics, the states of the optimizer and the averages."""
    (optimizer,) = trainer.optimizers
    averages = list(getattr(optimizer, "ema_params", ()))
    getattr(optimizer, "join", lambda: None)()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [value.clone() for value in [*model.state_dict().values(), *states, *averages]]


def same(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others))


@pytest.mark.parametrize("gradients", [pytest.param(False, id="loss"), pytest.param(True, id="gradients")])
@pytest.mark.parametrize(
    "given, skipped",
    [
        ([], {2}),
        (["exp_manager.ema.enable=true", "exp_manager.ema.decay=0.9"], {2}),
        (["trainer.accumulate_grad_batches=2"], {2, 3}),
        pytest.param(["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0"], {2}, marks=SLOW),
        pytest.param(["trainer.gradient_clip_algorithm=value"], {2}, marks=SLOW),
    ],
    ids=["plain", "averages", "accumulated", "bf16", "clipped by value"],
)
def test_a_step_that_is_not_finite_changes_nothing(given, skipped, gradients, tmp_path, warnings, monkeypatch):
    extra = [f"++{one}" if "algorithm" in one else one for one in given]
    spoiler = Spoil([2], gradients)
    model = train(*settings(tmp_path), *extra, callbacks=[spoiler], monkeypatch=monkeypatch)
    assert_finite(model)
    before_and_after = list(zip(spoiler.states, spoiler.states[1:]))
    if len(skipped) == 1:
        changed = {batch for batch, (before, after) in enumerate(before_and_after) if not same(before, after)}
        assert changed == {0, 1, 2, 3} - skipped
    else:  # the statistics of the first batch of a step change before the step is complete
        assert same(spoiler.states[2], spoiler.states[4]) and not same(spoiler.states[0], spoiler.states[2])
    (warning,) = [text for text in warnings if "is skipped" in text]
    assert ("the loss is nan" if not gradients else "the gradients are not finite") in warning
    named = {part.strip() for part in warning.split("recordings of the batch: ")[1].split(",")}
    assert len(named) == (2 if not gradients else 2 * len(skipped))
    assert all(Path(name).parent == tmp_path for name in named)


def test_too_many_skipped_steps_in_a_row_stop_training_with_a_good_checkpoint(tmp_path, warnings, capsys):
    given = [*settings(tmp_path), "bad_data.stop_after=3", "trainer.max_epochs=5", "model.train_ds.shuffle=false"]
    for i in range(2, 8):
        spoil(tmp_path / f"train_{i}.wav", "nan")
    every_step = ["every_n_train_steps=1", "every_n_epochs=null", "always_save_nemo=false"]
    given += [f"exp_manager.checkpoint_callback_params.{setting}" for setting in every_step]
    assert main(["train", "squeezeformer_ctc_char", *given, "--skip-audio-check"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nemo-squeezeformer: error:" in line]
    assert "3 skipped steps in a row" in line and "no recording of the batch can be used" in line and "train_7" in line
    (last,) = tmp_path.rglob("*-last.ckpt")
    weights = torch.load(last, weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


@SLOW
def test_a_stopped_run_counts_only_steps_in_a_row(tmp_path, warnings, monkeypatch):
    train(*settings(tmp_path), "bad_data.stop_after=2", callbacks=[Spoil([0, 2])], monkeypatch=monkeypatch)
    with pytest.raises(UserError, match="2 skipped steps in a row"):
        train(*settings(tmp_path), "bad_data.stop_after=2", callbacks=[Spoil([1, 2])], monkeypatch=monkeypatch)


class TwoProcesses(lightning.LightningModule):
    """A model whose loss is NaN in one of two processes in the second step. The gradients are finite."""

    def __init__(self, folder: Path):
        super().__init__()
        self.layer, self.folder, self.weights = torch.nn.Linear(4, 1), folder, list[torch.Tensor]()

    def training_step(self, batch, batch_idx):
        self.weights.append(self.layer.weight.detach().clone())
        wrong = batch_idx == 1 and self.global_rank == 1
        return self.layer(batch).square().mean() + (float("nan") if wrong else 0.0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)

    def on_train_end(self):
        torch.save([*self.weights, self.layer.weight.detach()], self.folder / f"{self.global_rank}.pt")

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=2)


def test_all_processes_skip_the_step_of_one_process(tmp_path):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[finite_steps.FiniteSteps()],
    )
    trainer.fit(TwoProcesses(tmp_path))
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert same(one, other) and len(one) == 5
    assert [step for step in range(4) if torch.equal(one[step], one[step + 1])] == [1]


def test_exact_resuming_keeps_the_callbacks(tmp_path):
    from nemo_squeezeformer.integration.exact_resume import ExactResume

    trainer = lightning.Trainer(callbacks=[ExactResume()], logger=False, accelerator="cpu")
    bad_data.add_callbacks(trainer, stop_after=4)
    bad_data.add_callbacks(trainer, stop_after=5)
    kinds = [type(callback).__name__ for callback in trainer.callbacks]
    assert [kinds.count(name) for name in ("ExactResume", "FiniteSteps", "UsableRecordings")] == [1, 1, 1]


@pytest.mark.parametrize("setting", ["init_from_nemo_model", "init_from_ptl_ckpt"])
def test_initial_weights_that_are_not_finite_are_refused(setting, tmp_path):
    model = asr_model()
    next(model.encoder.parameters()).data.view(-1)[0] = float("nan")
    path = tmp_path / "bad.nemo"
    model.save_to(str(path)) if "nemo" in setting else torch.save({"state_dict": model.state_dict()}, path)
    with pytest.raises(UserError, match=rf"{setting}=.*bad\.nemo: 1 of \d+ tensors contain NaN .*encoder\."):
        initial_weights.check(recipe(model, **{setting: str(path)}), model)


def test_a_run_does_not_resume_from_weights_that_are_not_finite(tmp_path):
    path = tmp_path / "bad.ckpt"
    torch.save({"state_dict": {"a": torch.ones(3), "b": torch.tensor([1.0, float("inf")])}}, path)
    with pytest.raises(UserError, match=r"does not resume from .*bad\.ckpt: 1 of 2 tensors .*\(b\)"):
        require_finite(str(path))
