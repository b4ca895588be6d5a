"""Fine-tuning with a new vocabulary freezes the encoder while the decoder learns its first outputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.utils import logging
from omegaconf import open_dict
from torch.optim import Optimizer

SHARE = 0.25  # the encoder is frozen for at most this fraction of the run


class FrozenEncoder(Callback):
    """A callback that keeps the weights and the batch-norm statistics of the encoder unchanged at the start of a run.

    With one process, the gradients of the encoder are not computed, so these steps are faster. With several processes,
    DDP needs the gradients, and the callback removes them before the step of the optimizer.

    Args:
        epochs: number of epochs; can be a fraction. The encoder is frozen for at most a quarter of the run.
    """

    def __init__(self, epochs: float = 1.0) -> None:
        self.epochs = epochs
        self.until = 0  # the number of optimizer steps with a frozen encoder
        self._frozen: list[torch.nn.Parameter] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        cfg: Any = pl_module.cfg
        with open_dict(cfg):  # the saved model must not keep the learning rates of this run
            cfg.pop("optim_param_groups", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        encoder: Any = pl_module.encoder
        each = trainer.num_training_batches / trainer.accumulate_grad_batches
        self.until = math.ceil(min(self.epochs * each, SHARE * trainer.estimated_stepping_batches))
        if trainer.global_step >= self.until:
            return
        self._frozen = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        encoder.eval()
        if trainer.world_size == 1:
            for parameter in self._frozen:
                parameter.requires_grad_(False)
        logging.info(f"The encoder is frozen for {self.until} steps, because the decoder starts untrained")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._frozen and trainer.global_step >= self.until:
            self._unfreeze(pl_module)
            logging.info(f"The encoder is trained from step {trainer.global_step} on")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for parameter in self._frozen:
            parameter.grad = None  # optimizers pass over parameters without a gradient

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._frozen:
            self._unfreeze(pl_module)

    def _unfreeze(self, pl_module: LightningModule) -> None:
        encoder: Any = pl_module.encoder
        encoder.train()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []
