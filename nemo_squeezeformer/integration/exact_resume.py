"""Exact resuming: a killed run goes on with the batch, and the random numbers, that it would have had."""

import random
from typing import Any

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.core.classes.common import Serialization
from torch.utils.data import IterableDataset


class ExactResume(Callback, Serialization):  # Serialization: what NeMo lets a configuration make
    """Makes a run that is resumed from any checkpoint end with the weights of one that was never stopped.

    Lightning restores weights, optimiser, schedule and counters. It does not restore random numbers, and inside an
    epoch it starts the data over while it counts on. It also repeats the batch after which a checkpoint was written by
    ``every_n_train_steps``, so that the run makes a step too many.

    Here every batch gets random numbers that depend only on ``seed``, the process, the epoch and the batch; the batches
    that the epoch has had are fetched again and left out; none is repeated. Data without a fixed order (tar files,
    Lhotse Shar) is not fetched again, for that would be other data: there the run goes on in a new random order.

    Use it by ``+resume=exact``, or in a YAML file under ``trainer.callbacks``.

    Args:
        seed: of the order of the data, of augmentation, dropout, SpecAugment and dither; initial weights are not its.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._begun = False
        self._batches_done = 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in (batches["current"], batches["total"]):
            count["completed"] = count["processed"]  # its step is in the weights; Lightning counts it after saving
        self._batches_done = 0 if batches["is_last_batch"] else batches["current"]["completed"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_anew(trainer)
        if self._begun:  # Lightning draws the order of the data after this hook, but before it in the first epoch
            return
        self._begun = True
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        iter(fetcher)
        if any(isinstance(loader.dataset, IterableDataset) for loader in fetcher.combined_loader.flattened):
            return
        for batch in range(self._batches_done):
            next(fetcher)
            self._draw_anew(trainer, batch)
        fetcher.fetched = 0  # Lightning adds them itself

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._draw_anew(trainer, batch_idx)

    def _draw_anew(self, trainer: Trainer, batch: int = -1) -> None:
        place = [self.seed, trainer.global_rank, trainer.current_epoch, batch + 1]
        drawn = int(numpy.random.SeedSequence(place).generate_state(1)[0])
        random.seed(drawn)
        numpy.random.seed(drawn)
        torch.manual_seed(drawn)
