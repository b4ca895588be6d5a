"""The end of a training run: the best weights, the text at the end, the progress bar, and the way to continue."""

from __future__ import annotations

import io
import logging
import pickle
import tarfile
from contextlib import redirect_stderr
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.exp_manager import StatelessTimer

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.callbacks import best_weights, run_end, stop_after_batch
from nemo_squeezeformer.integration.resuming.checkpoint_contents import plain_objects
from nemo_squeezeformer.training.mistakes import interrupted_runs
from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types.model_type import SMALL, spoken
from tests.samples.nemo_log import sent_to

PARAMETERS = "exp_manager.checkpoint_callback_params"
# The loss falls in each epoch. With mode=max, the first checkpoint is the best, and the last is the worst.
HIGHEST_LOSS = [f"{PARAMETERS}.monitor=val_loss", f"{PARAMETERS}.mode=max"]
NAME = "Squeezeformer-CTC-Char"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Any:
    """Train for three epochs. Return the settings, the folder of the run, and the text on stderr."""
    folder = tmp_path_factory.mktemp("run")
    small = [setting for setting in SMALL if setting != "trainer.enable_progress_bar=false"]
    settings = [*small, *spoken(folder), *HIGHEST_LOSS, "model.optim.lr=0.002", f"exp_manager.exp_dir={folder}/exp"]
    torch.manual_seed(0)
    with redirect_stderr(io.StringIO()) as said, sent_to(logging.StreamHandler(said)):
        assert main(["train", "squeezeformer_ctc_char", *settings, "trainer.max_epochs=3"]) == 0
    (dated,) = (folder / "exp" / NAME).iterdir()
    return SimpleNamespace(settings=settings, folder=dated, said=said.getvalue().replace("\r", "\n"))


def weights_of(archive: Path) -> dict[str, torch.Tensor]:
    with tarfile.open(archive) as file:
        member = next(each for each in file.getmembers() if each.name.endswith("model_weights.ckpt"))
        content = file.extractfile(member)
        assert content is not None
        return torch.load(io.BytesIO(content.read()), weights_only=True)


def best_of(folder: Path) -> Path:
    """Return the checkpoint with the highest loss in its name."""
    losses = {path: float(path.name.partition("val_loss=")[2].partition("-")[0]) for path in folder.glob("*.ckpt")}
    return max((path for path in losses if "-last" not in path.name), key=lambda path: losses[path])


def test_the_nemo_file_has_the_weights_of_the_best_checkpoint(run):
    folder = run.folder / "checkpoints"
    saved = weights_of(folder / f"{NAME}.nemo")
    last = torch.load(next(folder.glob("*-last.ckpt")), weights_only=False)["state_dict"]
    best = torch.load(best_of(folder), weights_only=False)["state_dict"]
    assert saved.keys() == best.keys() and all(torch.equal(saved[name], best[name]) for name in best)
    assert not all(torch.equal(saved[name], last[name]) for name in last)


def test_pytorch_reads_the_best_checkpoint_for_nemo_2_without_running_code(run):
    path = str(best_of(run.folder / "checkpoints"))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with plain_objects(path):
        assert torch.load(path, weights_only=True)["state_dict"]
    assert NeMoModelCheckpoint.on_save_checkpoint.__wrapped__  # type: ignore[attr-defined]


def test_the_end_names_the_best_result_and_the_files(run):
    *_, best, model, files = run.said.rstrip().splitlines()
    assert "Best val_loss: " in best and best.endswith(f"({best_of(run.folder / 'checkpoints').name})")
    assert model.endswith(f"The model with these weights is {run.folder}/checkpoints/{NAME}.nemo")
    assert files.endswith(f"Logs and checkpoints are in {run.folder}")


def test_checkpoints_that_were_not_validated_give_a_warning(tmp_path, caplog):
    cases = ({"every_n_train_steps": 2}, True), ({"every_n_epochs": 1}, False)
    for settings, warned in (*cases, ({"every_n_train_steps": 2, "monitor": "train_loss"}, False)):
        caplog.clear()
        writer = NeMoModelCheckpoint(**{"dirpath": tmp_path, "monitor": "val_wer", "save_best_model": True} | settings)
        trainer: Any = SimpleNamespace(checkpoint_callback=writer, callbacks=[])
        best_weights.add_callback(trainer)
        assert ("the best checkpoint can have weights that were not validated" in caplog.text) == warned


def test_the_bar_shows_the_whole_run(run):
    bar = [line for line in run.said.splitlines() if line.startswith("training: 100%")][-1]
    assert "6/6 [" in bar and "epoch 3/3, loss " in bar and "val_loss " in bar


def test_a_run_that_resumes_does_not_begin_anew_beside_a_dated_run(run, monkeypatch):
    monkeypatch.delenv("NEMO_EXPM_VERSION", raising=False)  # NeMo sets the variable for the processes of a run
    cfg = compose("squeezeformer_ctc_char", [*run.settings, "+resume=exact"])
    with pytest.raises(UserError, match=f"the run in {run.folder} has checkpoints") as caught:
        interrupted_runs.check(cfg)
    given = str(caught.value).partition("to continue this run, add ")[2].partition(";")[0]
    interrupted_runs.check(compose("squeezeformer_ctc_char", [*run.settings, "+resume=exact", given]))
    interrupted_runs.check(compose("squeezeformer_ctc_char", run.settings))
    assert given == f"++exp_manager.version={run.folder.name}"


@pytest.mark.slow
@pytest.mark.parametrize("averages", [False, True], ids=["weights", "averages"])
def test_a_run_that_resumes_does_not_need_the_file_of_its_first_weights(averages, tmp_path, caplog):
    first = tmp_path / "first.nemo"
    settings = [*SMALL, *spoken(tmp_path), f"exp_manager.exp_dir={tmp_path}/exp", "+resume=exact"]
    build(compose("squeezeformer_ctc_char", [*settings, "trainer.max_epochs=1"])).save_to(str(first))
    settings += [f"+init_from_nemo_model={{base: {{path: {first}, include: [decoder.]}}}}"]
    settings += ["exp_manager.ema.enable=true"] if averages else []
    with sent_to(caplog.handler):
        assert main(["train", "squeezeformer_ctc_char", *settings, "trainer.max_epochs=1"]) == 0
        assert "start untrained" in caplog.text
        caplog.clear()
        first.unlink()
        assert main(["train", "squeezeformer_ctc_char", *settings, "trainer.max_epochs=2"]) == 0
        assert "start untrained" not in caplog.text
    names = [path.name for path in (tmp_path / "exp").rglob("*-last.ckpt")]
    assert len(names) == 1 and "-step=4-" in names[0]


@pytest.mark.slow
def test_a_run_whose_time_is_over_is_not_tested_and_says_how_it_continues(tmp_path, caplog):
    settings = [*SMALL, *spoken(tmp_path), f"exp_manager.exp_dir={tmp_path}/exp", "+resume=exact"]
    settings += [f"model.test_ds.manifest_filepath={tmp_path}/dev.json", "model.test_ds.num_workers=0"]
    with sent_to(caplog.handler):
        limit = ["exp_manager.max_time_per_run=00:00:00:02", "trainer.max_epochs=2000"]
        assert main(["train", "squeezeformer_ctc_char", *settings, *limit]) == 0
        (last,) = (tmp_path / "exp").rglob("*-last.ckpt")
        over = "The time of exp_manager.max_time_per_run is over: the same command resumes the run from "
        assert f"{over}{last}" in caplog.text and "test_wer" not in caplog.text
        steps = int(last.name.partition("step=")[2].partition("-")[0])
        caplog.clear()
        limit = ["exp_manager.max_time_per_run=00:01:00:00", f"trainer.max_steps={steps + 2}"]
        assert main(["train", "squeezeformer_ctc_char", *settings, *limit]) == 0
        assert "is over" not in caplog.text


def test_only_the_time_of_exp_manager_ends_a_run_that_can_continue():
    state = {"max_steps": 9, "global_step": 3, "max_epochs": None, "current_epoch": 0}
    for timer, over in ((Timer(timedelta(0)), False), (StatelessTimer(timedelta(0)), True)):
        trainer: Any = SimpleNamespace(callbacks=[timer], **state)
        assert stop_after_batch.is_out_of_time(trainer) == over


def test_a_run_without_a_folder_names_no_folder():
    assert run_end.words(None, None, None, {"create_tensorboard_logger": True}) == ""


@pytest.mark.slow
def test_a_dated_run_continues_in_its_folder_and_its_best_checkpoint_stays_the_best(run):
    before = (run.folder / "checkpoints" / f"{NAME}.nemo").stat().st_mtime_ns
    added = ["+resume=exact", f"++exp_manager.version={run.folder.name}", "trainer.max_epochs=4"]
    assert main(["train", "squeezeformer_ctc_char", *run.settings, *added]) == 0
    assert (run.folder / "checkpoints" / f"{NAME}.nemo").stat().st_mtime_ns > before
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]
    test_the_nemo_file_has_the_weights_of_the_best_checkpoint(run)


def test_after_ctrl_c_the_last_line_is_the_command_that_continues(monkeypatch, tmp_path):
    folder = tmp_path / "2026-01-31_12-00-00" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "a-last.ckpt"
    path.write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["/bin/nemo-squeezeformer", "train", "recipe", "model.labels=[a, b]"])
    trainer: Any = SimpleNamespace(checkpoint_callback=SimpleNamespace(last_model_path=str(path)))
    assert stop_after_batch.how_to_continue(trainer, resumable=False) == (
        f"{path} is written; this command resumes the run: nemo-squeezeformer train recipe 'model.labels=[a, b]' "
        "+resume=exact ++exp_manager.version=2026-01-31_12-00-00"
    )
