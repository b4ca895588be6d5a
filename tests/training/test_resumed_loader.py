"""Tests of ``ExactResume`` with data loaders that restore their own position, as in the next release of NeMo.

With ``use_stateful_dataloader: true``, the next release of NeMo builds ``StatefulDataLoader`` of torchdata with a
sampler of Lhotse. The loaders of these tests are built in the same way.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.testing.dummies import DummyManifest
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from nemo_squeezeformer.integration import exact_resume
from nemo_squeezeformer.integration.exact_resume import ExactResume

stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning:torchdata")
STEPS = 6  # batches in an epoch of 24 recordings


class Names(Dataset):
    """Batches of Lhotse's cuts as the numbers in the names of the cuts."""

    def __getitem__(self, cuts: CutSet) -> torch.Tensor:
        return torch.tensor([float(cut.id.rpartition("-")[2]) for cut in cuts])


def cutting(kind: type[DataLoader]) -> DataLoader:
    return kind(Names(), sampler=DynamicCutSampler(cuts(), max_cuts=4, shuffle=True, seed=3), batch_size=None)


def bucketing(kind: type[DataLoader]) -> DataLoader:
    settings = {"duration_bins": [1.5], "shuffle": True, "seed": 3}
    return kind(Names(), sampler=DynamicBucketingSampler(cuts(), max_cuts=4, **settings), batch_size=None)


def cuts() -> CutSet:
    """Return 24 cuts, which fill six batches. Half of the cuts last one second, and half of them last two seconds."""
    short, long = (DummyManifest(CutSet, begin_id=begin, end_id=begin + 12) for begin in (0, 12))
    return CutSet.from_cuts([*short, *long.pad(duration=2.0, preserve_id=True)])


class Sum(lightning.LightningModule):
    """A weight that depends on each batch, on the order of the batches and on random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.int().tolist())
        return (self.weight - batch.sum() * torch.rand(())).square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Killed(Exception):
    pass


class Kill(lightning.Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


def run(folder: Path, loader: DataLoader, kill: int = -1, resume: bool = False, exact: bool = True, **limits) -> Sum:
    """Train for two epochs with a checkpoint at each step, and return the model. Stop before step ``kill``."""
    torch.manual_seed(0)
    model = Sum()
    checkpoints = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=1, save_last=True)
    callbacks = [checkpoints, Kill(kill), *[ExactResume()] * exact]
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    length = {"max_epochs": 2, "limit_train_batches": STEPS} | limits
    trainer = lightning.Trainer(accelerator="cpu", callbacks=callbacks, **length, **off)
    with contextlib.suppress(Killed):
        trainer.fit(model, loader, ckpt_path=str(folder / "last.ckpt") if resume else None)
    return model


@pytest.mark.parametrize("kill", [4, STEPS, STEPS + 2], ids=["inside", "after", "later"])
@pytest.mark.parametrize("build", [cutting, bucketing])
def test_a_run_with_a_loader_that_restores_itself_continues_exactly(build, kill, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(exact_resume.logging, "info", said.append)
    monkeypatch.setattr(exact_resume.logging, "warning", said.append)
    unbroken = run(tmp_path / "unbroken", build(stateful.StatefulDataLoader))
    stopped = run(tmp_path, build(stateful.StatefulDataLoader), kill)
    assert said == [exact_resume.OWN_PLACE] * 2
    torch.rand(5)
    resumed = run(tmp_path, build(stateful.StatefulDataLoader), resume=True)
    assert said == [exact_resume.OWN_PLACE] * 3
    assert stopped.seen + resumed.seen == unbroken.seen and len(unbroken.seen) == 2 * STEPS
    assert sorted(sum(unbroken.seen[:STEPS], [])) == list(range(24)) and unbroken.seen[0] != unbroken.seen[STEPS]
    torch.testing.assert_close(resumed.weight, unbroken.weight, rtol=0, atol=0)


def test_without_the_callback_a_resumed_run_has_other_random_numbers(tmp_path):
    unbroken = run(tmp_path / "unbroken", cutting(stateful.StatefulDataLoader), exact=False)
    stopped = run(tmp_path, cutting(stateful.StatefulDataLoader), kill=4, exact=False)
    torch.rand(5)
    resumed = run(tmp_path, cutting(stateful.StatefulDataLoader), resume=True, exact=False)
    assert stopped.seen + resumed.seen == unbroken.seen
    assert abs(resumed.weight.item() - unbroken.weight.item()) > 1e-3


def test_a_checkpoint_without_a_position_is_resumed_by_skipping_batches(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(exact_resume.logging, "info", said.append)
    unbroken = run(tmp_path / "unbroken", cutting(DataLoader))
    stopped = run(tmp_path, cutting(DataLoader), kill=4)
    resumed = run(tmp_path, cutting(stateful.StatefulDataLoader), resume=True)
    assert not said and stopped.seen + resumed.seen == unbroken.seen


def test_an_unknown_number_of_batches_gets_a_warning_because_lightning_reads_ahead(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(exact_resume.logging, "warning", said.append)
    stopped = run(tmp_path, cutting(stateful.StatefulDataLoader), kill=4, limit_train_batches=1.0)
    assert said == [exact_resume.READS_AHEAD]
    resumed = run(tmp_path, cutting(stateful.StatefulDataLoader), resume=True, limit_train_batches=1.0)
    first_epoch = stopped.seen + resumed.seen[: STEPS - 5]
    assert len(set(sum(first_epoch, []))) == 24 - 4  # the fifth batch is missing
