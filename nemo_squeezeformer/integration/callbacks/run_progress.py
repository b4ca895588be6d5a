"""The progress bar of a training run: the loss, the metric of the validation, and the time left of the whole run."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from typing import Any, TextIO

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from tqdm import tqdm

MEAN_OF = 25  # number of batches whose mean loss the bar shows


class RunProgress(ProgressBar):
    """A progress bar over all steps of a run. Lightning's bar covers only one epoch.

    The time left is the number of remaining steps, times the mean time of a step. This mean includes the validations.

    Args:
        metric: the metric of the validation that the bar shows, for example ``val_wer``.
        file: where the bar is written (default: stderr).
    """

    def __init__(self, metric: str = "val_wer", file: TextIO | None = None) -> None:
        super().__init__()
        self.metric = metric
        self.file = file
        self._shown = True
        self._bar: Any = None
        self._losses: deque[torch.Tensor] = deque(maxlen=MEAN_OF)
        self._next = 0.0

    def disable(self) -> None:
        self._shown = False

    def enable(self) -> None:
        self._shown = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        tqdm.write(kwargs.get("sep", " ").join(map(str, args)), file=self.file or sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self._shown or not trainer.is_global_zero:
            return
        steps = trainer.estimated_stepping_batches
        file = self.file or sys.stderr
        # In a file or a pipe, each update adds text, so one update in 15 seconds is enough.
        self._interval = 0.5 if file.isatty() else 15.0
        self._bar = tqdm(
            total=int(steps) if math.isfinite(steps) else None,
            initial=trainer.global_step,
            desc="training",
            unit="step",
            file=file,
            dynamic_ncols=True,
            mininterval=self._interval,
            smoothing=0,  # the mean of the whole run, which includes the validations
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None:
            return
        if (loss := loss_of(trainer, outputs)) is not None:
            self._losses.append(loss)
        if time.monotonic() >= self._next:  # reading a loss waits for a GPU
            self._next = time.monotonic() + self._interval
            self._bar.set_postfix_str(self._words(trainer), refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._next = 0.0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._words(trainer), refresh=False)
            self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _words(self, trainer: Trainer) -> str:
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        epoch = min(trainer.current_epoch + 1, epochs or math.inf)
        words = [f"epoch {epoch}{f'/{epochs}' if epochs else ''}"]
        if self._losses:
            words.append(f"loss {torch.stack(list(self._losses)).mean().item():.2f}")
        if (found := trainer.callback_metrics.get(self.metric)) is not None:
            words.append(f"{self.metric} {shown(self.metric, float(found))}")
        return ", ".join(words)


def loss_of(trainer: Trainer, outputs: Any) -> torch.Tensor | None:
    """Return the loss of a batch, a scalar on the device, or None if the step has no loss.

    Args:
        outputs: the argument of ``on_train_batch_end``. Lightning has divided its loss by the number of batches of an
            optimizer step.
    """
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if not isinstance(loss, torch.Tensor):
        return None
    return trainer.accumulate_grad_batches * loss.detach().float().sum()


def shown(metric: str, value: float) -> str:
    """Return the value of a metric as a text. An error rate is shown in percent."""
    return f"{value:.2%}" if metric.endswith(("wer", "cer")) else f"{value:.4g}"


def replace_bar(trainer: Trainer, metric: str) -> None:
    """Replace Lightning's default progress bar by ``RunProgress``. A chosen or disabled bar is not changed."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for place, callback in enumerate(callbacks):
        if type(callback) is TQDMProgressBar:
            callbacks[place] = RunProgress(metric)
