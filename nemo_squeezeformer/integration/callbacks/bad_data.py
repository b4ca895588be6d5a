"""The callbacks that keep data with problems out of the weights."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from nemo_squeezeformer.integration.callbacks.finite_steps import FiniteSteps
from nemo_squeezeformer.integration.callbacks.usable_recordings import UsableRecordings


def add_callbacks(trainer: Trainer, stop_after: int) -> None:
    """Add ``UsableRecordings`` and ``FiniteSteps``, unless the trainer has them.

    The callbacks are not a part of the recipes, because some of NeMo's scripts refuse callbacks in a configuration, and
    because ``+resume=exact`` and a list of callbacks on the command line replace the list of a recipe.
    """
    given: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in (FiniteSteps(stop_after), UsableRecordings()):
        if not any(isinstance(other, type(callback)) for other in given):
            given.insert(0, callback)
