"""NeMo's moving average of the weights in a resumed run."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.collections.common.callbacks.ema import EMAOptimizer


class ResumedAverages(Callback):
    """A callback that lets NeMo change the moving averages of a resumed run.

    NeMo saves the averages as parameters that need a gradient. After loading, PyTorch refuses to change them in place.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, EMAOptimizer):
                optimizer.ema_params = tuple(average.detach() for average in optimizer.ema_params)
