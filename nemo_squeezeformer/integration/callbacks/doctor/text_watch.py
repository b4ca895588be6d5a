"""Warnings about predictions in validation: all are empty, or most errors are only letter case and punctuation."""

from __future__ import annotations

import unicodedata
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.collections.asr.metrics.wer import word_error_rate
from nemo.collections.asr.models import EncDecCTCModel, EncDecRNNTModel
from nemo.utils import logging

from nemo_squeezeformer.integration.callbacks.doctor.loss_watch import LossWatch, remedy

HIGH = 0.5  # a word error rate that is worth an explanation
GAIN = 0.2  # lower word error rate without letter case and punctuation
FALLEN = 0.8  # the loss falls if its mean is below this fraction of the first mean


class TextWatch(Callback):
    """A callback that reads the predictions of the first batch of each validation.

    The callback works with CTC models, transducers and hybrids without prompts. It decodes the batch with the decoding
    of the model.

    Args:
        loss: the callback whose mean losses show whether the loss falls.
        silent_after: number of steps after which empty predictions are a problem. Before, they are normal. With 0,
            the callback does not warn about empty predictions.
    """

    def __init__(self, loss: LossWatch, silent_after: int = 500) -> None:
        self.loss = loss
        self.silent_after = silent_after
        self._said: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        return {"said": sorted(self._said)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._said = set(state_dict["said"])

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or dataloader_idx or trainer.sanity_checking or not can_be_read(pl_module, batch):
            return
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            predicted, references = texts(pl_module, batch)
        if trainer.is_global_zero and any(text.strip() for text in references):
            self.judge(predicted, references, trainer.global_step, pl_module)

    def judge(self, predicted: list[str], references: list[str], step: int, model: Any) -> None:
        """Warn if the predictions of a batch show a problem. The callback warns once about each problem."""
        if not any(text.strip() for text in predicted):
            if 0 < self.silent_after <= step:
                self._say("silent", silent(step, self.loss, model))
            return
        wer = word_error_rate(predicted, references)
        bare = word_error_rate([plain(text) for text in predicted], [plain(text) for text in references])
        if wer > HIGH and bare < wer - GAIN:
            example = next((pair for pair in zip(references, predicted) if pair[0] != pair[1]), ("", ""))
            self._say(
                "written",
                f"The word error rate of the first validation batch is {wer:.0%}, and {bare:.0%} without letter case "
                f"and punctuation: the texts of the validation are not written as the training texts (reference "
                f"{example[0]!r}, prediction {example[1]!r}). Write both manifests in the same way",
            )

    def _say(self, problem: str, message: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            logging.warning(message)


def silent(step: int, loss: LossWatch, model: Any) -> str:
    """Return the warning about a model that predicts only blanks. The remedy depends on the loss."""
    said = f"After {step} steps, the model predicts only blanks (all texts of the first validation batch are empty)"
    first, mean = loss.first, loss.mean
    if first is None or mean is None:
        return f"{said}. If the loss does not fall, start again with {remedy(model)}"
    if mean < FALLEN * first:
        return (
            f"{said}. The loss falls ({first:.3g} at the start, {mean:.3g} now), so continue: the decoder first "
            "learns the blank. If the loss stops falling, the run needs more steps or more data"
        )
    return (
        f"{said}, and the loss does not fall ({first:.3g} at the start, {mean:.3g} now). The learning rate is probably "
        f"too high; start again with {remedy(model)}. Check also that the texts belong to the recordings"
    )


def can_be_read(model: Any, batch: Any) -> bool:
    """Return True if the batch is samples, lengths, tokens and lengths, and the model needs no other input."""
    return needs_only_audio(type(model)) and isinstance(batch, (tuple, list)) and len(batch) == 4


def needs_only_audio(kind: type) -> bool:
    """Return True if a model of this class needs no other input than audio and tokens."""
    known = issubclass(kind, (EncDecCTCModel, EncDecRNNTModel))
    return known and not any(word in kind.__name__ for word in ("Prompt", "EOU"))


def texts(model: Any, batch: Any) -> tuple[list[str], list[str]]:
    """Return the predictions and the references of a batch."""
    signal, lengths, tokens, token_lengths = batch
    outputs = model.forward(input_signal=signal, input_signal_length=lengths)
    if isinstance(model, EncDecRNNTModel):
        found = model.decoding.rnnt_decoder_predictions_tensor(encoder_output=outputs[0], encoded_lengths=outputs[1])
    else:
        found = model.decoding.ctc_decoder_predictions_tensor(outputs[0], decoder_lengths=outputs[1])
    best = [each[0] if isinstance(each, list) else each for each in found]
    references = [
        model.decoding.decode_ids_to_str(row[:length].tolist()) for row, length in zip(tokens.cpu(), token_lengths)
    ]
    return [str(getattr(each, "text", each)) for each in best], references


def plain(text: str) -> str:
    """Return a text in lower case without punctuation."""
    letters = (letter for letter in text.casefold() if not unicodedata.category(letter).startswith(("P", "S")))
    return " ".join("".join(letters).split())
