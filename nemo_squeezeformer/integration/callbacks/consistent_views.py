"""CR-CTC (arXiv 2410.05101): training sees two views of each utterance, and the CTC predictions have to agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.collections.asr.losses.ctc import CTCLoss
from nemo.core.classes.common import Serialization
from nemo.utils import logging
from torch import Tensor

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.losses.consistency import consistency_of_rows, reduced


class ConsistentViews(Callback, Serialization):  # NeMo instantiates only Serialization classes from a configuration
    """A callback that gives a model of NeMo with a CTC decoder the loss of CR-CTC.

    In a training step, the model gets each utterance twice. SpecAugment draws other masks for each of the two views.
    All losses of the step are means over both views, also the loss of a transducer. Each CTC loss of the step gets the
    consistency term of its own predictions: the loss of the last layer, and the losses of InterCTC. In a hybrid, the
    weight of the CTC loss also multiplies the term. ``train_consistency_loss`` is the term of the last layer without
    any weight.

    The callback changes neither the weights nor the configuration, and has no effect on validation. A step needs about
    twice the time and twice the memory. With ``ctc_reduction: sum``, the losses are sums over both views.

    ``nemo-squeezeformer train`` adds the callback with ``loss=cr_ctc``. In other programs, put the callback into
    ``trainer.callbacks``.

    Args:
        weight: weight of the consistency term beside the CTC loss.

    Raises:
        UserError: the weight is negative.
    """

    def __init__(self, weight: float = 0.2) -> None:
        if weight < 0:
            raise UserError(f"consistency.weight={weight} is negative; the paper has 0.2")
        self.weight = weight
        self._terms: list[Tensor] = []
        self._plain_step: Callable[..., Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the training step of the model until the end of training.

        Raises:
            UserError: the model has no CTC decoder, or the weight of its CTC loss is 0.
        """
        model: Any = pl_module
        loss = ctc_loss(model)
        plain_step = self._plain_step = model.training_step
        if not masks(model):
            logging.warning(
                "loss=cr_ctc: SpecAugment has no masks, so the two views of an utterance differ only by dropout, and "
                "the consistency term is small; set model.spec_augment.time_masks"
            )

        def training_step(batch: Any, batch_idx: int) -> Any:
            self._terms = []
            hook = loss.register_forward_hook(self._add_term, with_kwargs=True)
            try:
                outputs = plain_step(twice(batch), batch_idx)
            finally:
                hook.remove()
            model.log("train_consistency_loss", self._terms[0])  # the last layer is the first to get its loss
            return outputs

        model.training_step = training_step  # NeMo also sets this attribute of each model

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore(pl_module)

    def _restore(self, model: Any) -> None:
        if self._plain_step is not None:
            model.training_step, self._plain_step = self._plain_step, None

    def _add_term(self, loss: Any, _: Any, given: Mapping[str, Tensor], value: Tensor) -> Tensor:
        rows = consistency_of_rows(given["log_probs"], given["input_lengths"])
        term = reduced(rows, given["target_lengths"], loss.config_reduction)
        self._terms.append(term.detach())
        return value + self.weight * term


def add_callback(trainer: Trainer, settings: Mapping[str, Any] | None) -> None:
    """Add ``ConsistentViews`` if the recipe has the section ``consistency``, unless the trainer has the callback.

    Args:
        settings: the section ``consistency`` of a recipe, which ``loss=cr_ctc`` writes, or None.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if settings is not None and not any(isinstance(callback, ConsistentViews) for callback in callbacks):
        callbacks.insert(0, ConsistentViews(**settings))


def ctc_loss(model: Any) -> CTCLoss:
    """Return the CTC loss of a model of NeMo.

    Raises:
        UserError: the model has no CTC decoder, or the weight of its CTC loss is 0.
    """
    losses = [getattr(model, name, None) for name in ("ctc_loss", "loss")]
    found = next((loss for loss in losses if isinstance(loss, CTCLoss)), None)
    if found is None:
        name = type(model).__name__
        raise UserError(f"loss=cr_ctc needs a model with a CTC decoder, but {name} has no CTC decoder")
    if getattr(model, "ctc_loss_weight", 1) == 0:
        raise UserError("loss=cr_ctc has no effect with model.aux_ctc.ctc_loss_weight=0; set a weight above 0")
    return found


def masks(model: Any) -> int:
    """Return the number of masks of SpecAugment in training."""
    settings = model.cfg.get("spec_augment") or {}
    return sum(settings.get(name) or 0 for name in ("time_masks", "freq_masks", "rect_masks"))


def twice(batch: Any) -> Any:
    """Return a batch with all utterances of ``batch``, followed by the same utterances again.

    Args:
        batch: a batch of NeMo: a tuple, a list or a dataclass of tensors and lists with one entry per utterance.

    Raises:
        UserError: the batch has another form.
    """
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        parts = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **{name: _repeated(part) for name, part in parts.items()})
    if not isinstance(batch, (tuple, list)):
        raise UserError(f"loss=cr_ctc cannot repeat a batch of the type {type(batch).__name__}; use loss=ctc")
    return tuple(_repeated(part) for part in batch)


def _repeated(part: Any) -> Any:
    if isinstance(part, Tensor):
        return torch.cat([part, part])
    return part if part is None else [*part, *part]
