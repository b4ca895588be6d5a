"""Exact resuming: a resumed run continues with the same batches and random numbers as an uninterrupted run."""

import random
from typing import Any, Protocol, runtime_checkable

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.core.classes.common import Serialization
from nemo.utils import logging
from torch.utils.data import IterableDataset

from nemo_squeezeformer.integration.resuming.checkpoint_contents import require_data

OWN_PLACE = (
    "The data loader saves and restores its own position (state_dict, load_state_dict). Therefore ExactResume neither "
    "draws a new order of the data nor skips batches; it only sets the random numbers of each batch."
)
READS_AHEAD = (
    "Lightning does not know the number of batches per epoch, so it reads one batch ahead. The saved position of the "
    "data loader is then one batch too far, and a resumed run leaves out this batch; set trainer.limit_train_batches "
    "to a whole number, for example to trainer.max_steps"
)


@runtime_checkable
class RestoresItself(Protocol):
    """A data loader that saves and restores its position. Lightning uses the same methods to recognize it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class ExactResume(Callback, Serialization):  # NeMo instantiates only Serialization classes from a configuration
    """A callback that gives a resumed run the same final weights as an uninterrupted run.

    Lightning restores the weights, the optimizer, the schedule and the counters, but not the random numbers. In the
    middle of an epoch, Lightning restarts the data from the beginning of the epoch, but the counters continue.
    Lightning also repeats the last batch before a checkpoint of ``every_n_train_steps``. The run then has one step
    more.

    With this callback, the random numbers of a batch depend only on ``seed``, the process, the epoch and the batch
    index. A resumed run fetches and skips the batches that the epoch has already used. No batch is repeated. Data
    without a fixed order (tar files, Lhotse Shar) is not fetched again, because the order would differ. With this data
    the run continues in a new random order.

    Enable the callback with ``+resume=exact``, or in the list ``trainer.callbacks`` of a YAML file.

    Args:
        seed: seed of the order of the data, augmentation, dropout, SpecAugment and dither. This seed does not affect
            the initial weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._begun = False
        self._batches_done = 0
        self._has_position = True  # a new run begins at the first batch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.ckpt_path:
            require_data(str(trainer.ckpt_path))  # Lightning loads the file after this hook

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        fit_loop = checkpoint["loops"]["fit_loop"]
        self._has_position = bool(fit_loop.get("state_dict", {}).get("combined_loader"))
        batches = fit_loop["epoch_loop.batch_progress"]
        for count in (batches["current"], batches["total"]):
            count["completed"] = count["processed"]  # the weights include this step; Lightning counts it after saving
        self._batches_done = 0 if batches["is_last_batch"] else batches["current"]["completed"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_anew(trainer)
        # In the first epoch Lightning draws the order of the data before this hook, in later epochs after it.
        if self._begun:
            return
        self._begun = True
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        loaders = fetcher.combined_loader.flattened
        if self._has_position and any(isinstance(loader, RestoresItself) for loader in loaders):
            logging.info(OWN_PLACE)
            if fetcher.length is None:
                logging.warning(READS_AHEAD)
            return
        iter(fetcher)
        if any(isinstance(getattr(loader, "dataset", None), IterableDataset) for loader in loaders):
            return
        for batch in range(self._batches_done):
            next(fetcher)
            self._draw_anew(trainer, batch)
        fetcher.fetched = 0  # Lightning adds the skipped batches itself

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._draw_anew(trainer, batch_idx)

    def _draw_anew(self, trainer: Trainer, batch: int = -1) -> None:
        place = [self.seed, trainer.global_rank, trainer.current_epoch, batch + 1]
        drawn = int(numpy.random.SeedSequence(place).generate_state(1)[0])
        random.seed(drawn)
        numpy.random.seed(drawn)
        torch.manual_seed(drawn)
