"""The .nemo file of a training run: it has the weights of the best checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from nemo.collections.common.callbacks.ema import EMA, EMAOptimizer
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint

from nemo_squeezeformer.integration.resuming.checkpoint_contents import read_data
from nemo_squeezeformer.integration.resuming.whole_checkpoints import average_of


class BestWeights(Checkpoint):  # Lightning calls the checkpoint callbacks last, in the order of the list
    """A callback that writes the .nemo file in place of NeMo, for ``save_best_model`` of ``exp_manager``.

    NeMo's own ``save_best_model`` has errors. NeMo 2.7.3 fails with PyTorch 2.6 or later, because ``torch.load``
    refuses the configuration in a checkpoint. In a resumed run, NeMo 3.0.0 writes the current weights in place of the
    best weights. At the end of the run, NeMo 3.0.0 sets the counters of the run back to the best checkpoint.

    This callback takes the weights from the file of the best checkpoint, and does not change the model. If the moving
    average of the weights is enabled, the .nemo file has the averaged weights. If several checkpoints have the same
    metric, the newest of them is the best checkpoint.

    Args:
        writer: NeMo's callback that writes the checkpoints. Its own .nemo files are turned off.
    """

    def __init__(self, writer: NeMoModelCheckpoint):
        self.writer = writer
        self.always, self.at_end = writer.always_save_nemo, writer.save_nemo_on_train_end
        writer.save_best_model = writer.always_save_nemo = writer.save_nemo_on_train_end = False
        self.path = Path(writer._format_nemo_checkpoint_name())
        self._written: Path | None = None
        self._seen: int | None = None

    @property
    def best(self) -> Path | None:
        """The best checkpoint, or None if there is no checkpoint with the metric."""
        scores = {path: float(score) for path, score in (self.writer.best_k_models or {}).items()}
        if not scores:
            return None
        best = (max if self.writer.mode == "max" else min)(scores.values())
        newest = [path for path, score in scores.items() if score == best][-1]
        return Path(newest) if Path(newest).is_file() else None  # checkpoints of sharded weights are folders

    @property
    def score(self) -> float | None:
        """The metric of the best checkpoint."""
        scores = {str(path): float(score) for path, score in (self.writer.best_k_models or {}).items()}
        return scores.get(str(self.best))

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Return the weights of the best checkpoint, or None if there is no best checkpoint."""
        if self.best is None:
            return None
        average = average_of(self.best)
        weights: dict[str, torch.Tensor] = read_data(str(average if average.is_file() else self.best))["state_dict"]
        return weights

    def load_into(self, trainer: Trainer, model: torch.nn.Module) -> None:
        """Give the model the weights of the best checkpoint, for a test after training."""
        if (weights := self.weights()) is None:
            return
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, EMAOptimizer):
                optimizer.join()  # a thread still reads the weights for the moving average
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EMA):  # otherwise, the test would use the moving average of the last step
                callback.validate_original_weights = True
        model.load_state_dict(weights)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_if_better(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._write_if_better(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_if_better(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: LightningModule) -> None:
        if self.at_end and not trainer.fast_dev_run and (self.best is None or self.best != self._written):
            self._write(trainer, pl_module)

    def _write_if_better(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saved = self.writer._last_global_step_saved
        if not self.always or saved == self._seen:  # comparing the metrics in each step would wait for the GPU
            return
        self._seen = saved
        if self.best is not None and self.best != self._written:
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the .nemo file. It replaces the old file when it is complete."""
        best = self.best
        if trainer.is_global_zero and callable(getattr(pl_module, "save_to", None)):
            before = pl_module._save_restore_connector
            if best is not None:
                pl_module._save_restore_connector = _OfCheckpoint(self.weights())
            # If the process is killed now, a resumed run removes a file with this ending (resuming.whole_checkpoints).
            new = self.path.with_name(f"{self.path.name}{NeMoModelCheckpoint.UNFINISHED_CHECKPOINT_SUFFIX}")
            try:
                pl_module.save_to(str(new))
                new.replace(self.path)
            finally:
                pl_module._save_restore_connector = before
                new.unlink(missing_ok=True)
            logging.info(f"{self.path.name} has the weights of {best.name if best else 'the last step'}")
        self._written = best


class _OfCheckpoint(SaveRestoreConnector):
    """A connector that saves a model with other weights than the weights in the memory."""

    def __init__(self, weights: Any):
        super().__init__()
        self.weights = weights

    def _save_state_dict_to_disk(self, state_dict: Any, filepath: str) -> None:
        torch.save(self.weights, filepath)


def add_callback(trainer: Trainer) -> BestWeights | None:
    """Add ``BestWeights`` if ``save_best_model`` is true. Return the callback, or None."""
    writer = trainer.checkpoint_callback
    if not isinstance(writer, NeMoModelCheckpoint) or not writer.save_best_model:
        return None
    between = writer._every_n_train_steps or writer._train_time_interval
    if between and str(writer.monitor).startswith("val"):
        logging.warning(
            f"exp_manager saves checkpoints between validations: {writer.monitor} of such a checkpoint is the result "
            "of an earlier validation, so the best checkpoint can have weights that were not validated; in place of "
            "every_n_train_steps and train_time_interval, set trainer.val_check_interval to a number of batches"
        )
    callback = BestWeights(writer)
    trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    return callback
