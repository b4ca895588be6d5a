"""Tests of resuming: a resumed run ends with the weights of an uninterrupted run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from nemo_squeezeformer.commands import train as command
from nemo_squeezeformer.integration.exact_resume import ExactResume
from nemo_squeezeformer.training.recipes import compose
from tests.samples.model_types.model_type import SMALL
from tests.samples.speech import write_manifest

EVERY_STEP = [
    f"exp_manager.checkpoint_callback_params.{setting}"
    for setting in ("every_n_train_steps=1", "every_n_epochs=null", "save_top_k=1", "always_save_nemo=false")
]
LHOTSE = ["data=lhotse", "model.train_ds.num_buckets=2", "trainer.max_epochs=-1", "trainer.max_steps=12"]
LHOTSE += ["trainer.val_check_interval=3", "model.train_ds.shuffle_buffer_size=8"]
GO_ON = ["exp_manager.resume_if_exists=true", "exp_manager.resume_ignore_no_checkpoint=true"]


def settings(folder: Path) -> list[str]:
    """Return the settings of a run of twelve steps: three epochs of eight shuffled utterances."""
    train_set, dev_set = write_manifest(folder), write_manifest(folder, utterances=2, name="dev")
    given = [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]
    return [*SMALL, *given, "trainer.max_epochs=3"]


class Killed(Exception):
    pass


class Kill(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


def run(folder: Path, *overrides: str, kill: int = -1, monkeypatch):
    """Run the command from fixed initial weights, and return the model.

    Return None if the run is stopped before step ``kill``.
    """
    import lightning.pytorch as lightning

    def trainer(callbacks=None, **config):
        return lightning_trainer(callbacks=[*(callbacks or []), Kill(kill)], **config)

    lightning_trainer = lightning.Trainer
    torch.manual_seed(0)
    cfg = compose("squeezeformer_ctc_char", [*settings(folder), *overrides, f"exp_manager.exp_dir={folder}/exp"])
    with monkeypatch.context() as patch:
        patch.setattr(lightning, "Trainer", trainer)
        try:
            return command.train(cfg)
        except Killed:
            return None


def equal(model, other) -> bool:
    weights, others = model.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(
    "kill, given",
    [
        (6, EVERY_STEP),
        pytest.param(6, [], marks=pytest.mark.slow),
        pytest.param(8, EVERY_STEP, marks=pytest.mark.slow),
        pytest.param(6, [*EVERY_STEP, *LHOTSE], marks=pytest.mark.slow),
        pytest.param(6, [*EVERY_STEP, "loss=cr_ctc"], marks=pytest.mark.slow),
    ],
    ids=["inside an epoch", "from the epoch before", "at an epoch's end", "inside an epoch of Lhotse's", "with CR-CTC"],
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_run(tmp_path, monkeypatch, kill, given):
    (tmp_path / "unbroken").mkdir()
    unbroken = run(tmp_path / "unbroken", "+resume=exact", *given, monkeypatch=monkeypatch)
    assert run(tmp_path, "+resume=exact", *given, kill=kill, monkeypatch=monkeypatch) is None
    torch.manual_seed(5)
    resumed = run(tmp_path, "+resume=exact", *given, monkeypatch=monkeypatch)
    assert resumed.trainer.global_step == unbroken.trainer.global_step == 12
    assert equal(resumed, unbroken)
    assert resumed.trainer.ckpt_path.endswith("-last.ckpt")  # the run was resumed


@pytest.mark.slow
def test_without_exact_resume_a_run_has_the_planned_steps_but_other_weights(tmp_path, monkeypatch):
    (tmp_path / "unbroken").mkdir()
    unbroken = run(tmp_path / "unbroken", monkeypatch=monkeypatch)
    assert run(tmp_path, *GO_ON, kill=6, monkeypatch=monkeypatch) is None
    resumed = run(tmp_path, *GO_ON, monkeypatch=monkeypatch)
    assert resumed.trainer.global_step == 12
    assert not equal(resumed, unbroken)


@pytest.mark.slow
def test_lightning_alone_repeats_the_batch_before_the_checkpoint(tmp_path, monkeypatch):
    """``ExactResume`` corrects this. If this test fails, Lightning has corrected it."""
    assert run(tmp_path, *GO_ON, *EVERY_STEP, kill=6, monkeypatch=monkeypatch) is None
    assert run(tmp_path, *GO_ON, *EVERY_STEP, monkeypatch=monkeypatch).trainer.global_step == 13


def test_random_numbers_depend_only_on_seed_process_epoch_and_batch():
    class Place:
        global_rank, current_epoch = 0, 3

    def drawn(seed=0, batch=4, **place):
        where = Place()
        vars(where).update(place)
        torch.rand(3)
        ExactResume(seed).on_train_batch_start(where, None, None, batch)
        return torch.rand(1).item()

    assert drawn() == drawn()
    others = {drawn(seed=1), drawn(batch=5), drawn(global_rank=1), drawn(current_epoch=4)}
    assert len(others | {drawn()}) == 5
