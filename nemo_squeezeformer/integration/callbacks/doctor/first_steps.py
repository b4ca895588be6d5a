"""An estimate after the first steps: the time to the end of the run, and the memory of the longest batch."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.utils import logging

from nemo_squeezeformer.process.peak_memory import GIB, peak_of_process


class FirstSteps(Callback):
    """A callback that measures the first steps, and then logs one line.

    The first fifth of the steps is not timed, because PyTorch chooses kernels and allocates memory in these steps.

    Args:
        steps: number of steps after which the line is logged; 0: no line.
    """

    def __init__(self, steps: int = 50) -> None:
        self.steps = steps
        self._begin = 0
        self._started = 0.0
        self._validating = 0.0  # when the validation has started
        self._measured_from = 0
        self._logged = False
        self._before = 0
        self._largest = 0.0  # seconds of audio of the largest batch, with padding

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin, self._started, self._logged = trainer.global_step, 0.0, False
        self._before = allocated(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        done = trainer.global_step - self._begin
        if self._validating:  # the time of a validation does not belong to a step
            self._started += time.monotonic() - self._validating
            self._validating = 0.0
        if not self._started and done >= self.steps // 5:
            wait(pl_module.device)
            self._started, self._measured_from = time.monotonic(), done
        if done < self.steps:
            self._largest = max(self._largest, padded_seconds(pl_module, batch))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._started:
            self._validating = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done = trainer.global_step - self._begin
        if self._logged or not done or done != self.steps or not self._started or not trainer.is_global_zero:
            return
        wait(pl_module.device)
        each = (time.monotonic() - self._started) / (done - self._measured_from)
        self._logged = True  # the next batches can belong to the same number of optimizer steps
        logging.info(self._words(trainer, pl_module, each))

    def _words(self, trainer: Trainer, model: Any, each: float) -> str:
        words = f"After {self.steps} steps: {each:.2f} s for a step"
        end = trainer.estimated_stepping_batches
        if math.isfinite(end):
            left = timedelta(seconds=round(each * (end - trainer.global_step)))
            words += f", so the last {end - trainer.global_step:,.0f} steps take {left} and the validations"
        peak, longest = peak_memory(model.device), longest_batch(model)
        words += f"; the memory reached {peak / GIB:.1f} GiB with batches of up to {self._largest:.0f} s"
        if longest and self._largest and longest > self._largest:
            needed = self._before + (peak - self._before) * longest / self._largest
            words += f", and the longest batch with {longest:.0f} s needs about {needed / GIB:.1f} GiB"
        return words


def longest_batch(model: Any) -> float | None:
    """Return the seconds of a batch with the longest utterances, or None if the data set does not list durations."""
    loader = getattr(model, "_train_dl", None)
    processor = getattr(getattr(loader, "dataset", None), "manifest_processor", None)
    size = getattr(loader, "batch_size", None)
    durations = [row.duration for row in getattr(processor, "collection", None) or []]
    if size is None and durations:
        batches = getattr(loader, "batch_sampler", None)
        size = getattr(batches, "micro_batch_size", None) or getattr(batches, "batch_size", None)
    return size * max(durations) if size and durations else None


def padded_seconds(model: Any, batch: Any) -> float:
    """Return the seconds of audio of a batch with padding; 0 if the batch has another form."""
    signal = batch[0] if isinstance(batch, (tuple, list)) else None
    if not isinstance(signal, torch.Tensor) or signal.dim() != 2:
        return 0.0
    return signal.numel() / float(getattr(model, "cfg", {}).get("sample_rate") or 16000)


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work, so that a time includes this work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def allocated(device: torch.device) -> int:
    """Return the memory that is in use before training, in bytes."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else peak_of_process()


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of PyTorch on a GPU, or of the process on a CPU, in bytes."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_of_process()
