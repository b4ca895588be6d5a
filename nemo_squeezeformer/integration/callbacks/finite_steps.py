"""Training skips a step whose loss or gradients are not finite, and names the recordings of the step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.collections.common.callbacks.ema import EMAOptimizer
from nemo.core.classes.common import Serialization
from nemo.utils import logging
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.recordings.named_batches import Names, names_of


class FiniteSteps(Callback, Serialization):  # NeMo instantiates only Serialization classes from a configuration
    """A callback that skips an optimizer step if a loss or the norm of the gradients of the step is not finite.

    A skipped step changes no weight, no state of the optimizer, no moving average of the weights, and no statistic of
    a batch norm. The learning-rate schedule counts the step. One value per optimizer step is read from the device, as
    PyTorch's ``GradScaler`` does. With several processes, all processes skip the step. With ``precision=16-mixed``, the
    callback checks only the losses, because the ``GradScaler`` skips the steps whose gradients overflow.

    ``nemo-squeezeformer train`` adds the callback. In other programs, put the callback into ``trainer.callbacks``.

    Args:
        stop_after: number of skipped steps in a row after which training stops with an error.
    """

    def __init__(self, stop_after: int = 10) -> None:
        self.stop_after = stop_after
        self._in_a_row = 0
        self._batches: list[Names] = []
        self._losses: list[Tensor] = []
        self._statistics: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._changed: list[tuple[Any, str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        norms = [module for module in pl_module.modules() if isinstance(module, _NormBase)]
        self._statistics = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._copies = [buffer.clone() for buffer in self._statistics]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._batches, self._losses = [], []
            if self._statistics:
                torch._foreach_copy_(self._copies, self._statistics)
        self._batches.append(names_of(batch))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._losses.append(loss.detach().float().sum())  # some models return a loss of shape (1,)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        checked = [*self._losses]
        if gradients and getattr(trainer.precision_plugin, "scaler", None) is None:
            norm = torch.stack(torch._foreach_norm(gradients)).float().norm()
            checked.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)  # of sharded weights
        good = torch.stack(checked).isfinite().all() if checked else torch.ones((), device=pl_module.device)
        good = good.float() * all(names.usable for names in self._batches)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(good, op=distributed.ReduceOp.MIN)
        if good.item():
            self._in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None  # optimizers pass over parameters without a gradient
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._copies)
        self._change_until_end(trainer, "gradient_clip_val", None)  # there are no gradients to clip
        for average in trainer.optimizers:
            if isinstance(average, EMAOptimizer):
                self._change_until_end(average, "decay", 1.0)  # with this decay, the averages stay as they are
        self._report(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        for changed, attribute, value in self._changed:
            setattr(changed, attribute, value)
        self._changed = []

    def _change_until_end(self, changed: Any, attribute: str, value: Any) -> None:
        """Change an attribute of an object until the end of the batch."""
        self._changed.append((changed, attribute, getattr(changed, attribute)))
        setattr(changed, attribute, value)

    def _report(self, trainer: Trainer) -> None:
        """Name the recordings of the skipped step. Stop training after ``stop_after`` skipped steps in a row.

        Raises:
            UserError: training stops.
        """
        self._in_a_row += 1
        losses = [loss.item() for loss in self._losses]
        bad = [index for index, loss in enumerate(losses) if not torch.tensor(loss).isfinite()]
        unusable = [index for index, names in enumerate(self._batches) if not names.usable]
        if unusable:
            reason = "no recording of the batch can be used"
        elif bad:
            reason = f"the loss is {losses[bad[0]]}"
        else:
            reason = "the gradients are not finite"
        chosen = sorted({*bad, *unusable}) or range(len(self._batches))
        batches = [self._batches[index] for index in chosen if index < len(self._batches)]
        files = [file for names in batches for file in names.files or [left_out for left_out, _ in names.problems]]
        named = f"; recordings of the batch: {', '.join(files)}" if files else ""
        logging.warning(f"Step {trainer.global_step} is skipped because {reason}{named}")
        if self._in_a_row >= self.stop_after:
            raise UserError(
                f"training stops after {self._in_a_row} skipped steps in a row: {reason} in step {trainer.global_step}"
                f"{named}; the checkpoints hold the weights before these steps; correct these recordings, or use a "
                "lower model.optim.lr or trainer.precision=32"
            )
