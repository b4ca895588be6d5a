"""A warning if the loss rises after it has fallen, because the peak learning rate is too high."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.utils import logging
from torch import Tensor

from nemo_squeezeformer.integration.callbacks.run_progress import loss_of

RISEN = 1.5  # times the lowest mean loss
LOST = 0.5  # of the fall of the loss since the start of the run


class LossWatch(Callback):
    """A callback that compares the mean loss of each window of steps with the lowest mean of a window.

    The warning needs two conditions. The mean loss is above 1.5 times the lowest mean. The mean loss has risen from the
    lowest mean by more than half of the fall from the first mean to the lowest mean. The losses of a window are read
    from the device together. The checkpoints of a run have the means, so that a resumed run continues with them.

    Args:
        window: number of steps in a window; 0: no warning.
    """

    def __init__(self, window: int = 50) -> None:
        self.window = window
        self.first: float | None = None
        self.mean: float | None = None
        self.lowest: tuple[float, int] | None = None  # the mean loss, and the step
        self._losses: list[Tensor] = []
        self._said = False

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "mean": self.mean, "lowest": self.lowest, "said": self._said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.mean, self.lowest, self._said = (
            state_dict[key] for key in ("first", "mean", "lowest", "said")
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.window and (loss := loss_of(trainer, outputs)) is not None:
            self._losses.append(loss)
        if not self._losses or len(self._losses) < self.window * trainer.accumulate_grad_batches:
            return
        losses = torch.stack(self._losses)
        self._losses = []
        losses = losses[losses.isfinite()]  # ``FiniteSteps`` reports the other losses
        if not len(losses):
            return
        self.mean = losses.mean().item()
        if self.first is None:
            self.first = self.mean
        if self.lowest is None or self.mean < self.lowest[0]:
            self.lowest = (self.mean, trainer.global_step)
        elif not self._said and has_risen(self.first, self.lowest[0], self.mean):
            self._said = True
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            logging.warning(
                f"The loss rises: its mean over {self.window} steps was {self.lowest[0]:.3g} at step {self.lowest[1]} "
                f"and is {self.mean:.3g} at step {trainer.global_step}, with the learning rate {rate:.2g}. The peak "
                f"learning rate is too high; stop, and start again with {remedy(pl_module)}"
            )


def has_risen(first: float, lowest: float, mean: float) -> bool:
    """Return True if the mean loss has risen, compared with the first mean and the lowest mean of the run."""
    return mean > RISEN * abs(lowest) and mean > lowest + LOST * (first - lowest)


def remedy(model: Any) -> str:
    """Return the setting for a third of the peak learning rate of a model of NeMo."""
    rate = (model.cfg.get("optim") or {}).get("lr")
    return f"model.optim.lr={rate / 3:.2g}" if isinstance(rate, (int, float)) else "a third of model.optim.lr"
