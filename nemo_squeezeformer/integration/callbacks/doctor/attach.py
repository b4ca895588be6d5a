"""The callbacks of this folder for a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from nemo_squeezeformer.integration.callbacks.doctor.first_steps import FirstSteps
from nemo_squeezeformer.integration.callbacks.doctor.loss_watch import LossWatch
from nemo_squeezeformer.integration.callbacks.doctor.text_watch import TextWatch


def add_callbacks(trainer: Trainer, settings: Mapping[str, Any]) -> None:
    """Add the callbacks that warn about the loss and the predictions, and the callback that estimates time and memory.

    Args:
        settings: the section ``doctor`` of a recipe. The callbacks have a default for each setting. With 0 or null, a
            setting turns its warning or its estimate off.
    """
    loss = LossWatch(settings.get("window", 50) or 0)
    text = TextWatch(loss, settings.get("silent_after", 500) or 0)
    first = FirstSteps(settings.get("estimate_after", 50) or 0)
    trainer.callbacks[:0] = [loss, text, first]  # type: ignore[attr-defined]
