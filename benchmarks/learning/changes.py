"""The changes of a training that the bench compares with the unchanged training."""

from __future__ import annotations

from typing import Any, NamedTuple


class Change(NamedTuple):
    """A change of the recipe.

    Attributes:
        before: the name of the change with which this change is compared.
        recipe: overrides of the recipe.
        encoder: settings of the encoder.
        fewer_steps: the number of steps is divided by this number.
        fewer_utterances: the number of utterances in a batch is divided by this number.
    """

    before: str
    recipe: tuple[str, ...] = ()
    encoder: dict[str, Any] = {}  # noqa: RUF012  no code changes the dictionary
    fewer_steps: int = 1
    fewer_utterances: int = 1


UNCHANGED = "unchanged"
DEEP_NORM = {"deep_norm": True}
CR_CTC = ("loss=cr_ctc",)  # the encoder sees each utterance twice, so the batch or the number of steps is halved
CHANGES = {
    UNCHANGED: Change(UNCHANGED),
    "DeepNorm": Change(UNCHANGED, encoder=DEEP_NORM),
    "CR-CTC": Change(UNCHANGED, CR_CTC, fewer_steps=2),
    "DeepNorm, CR-CTC": Change("DeepNorm", CR_CTC, DEEP_NORM, fewer_steps=2),
    "CR-CTC, half the batch": Change(UNCHANGED, CR_CTC, fewer_utterances=2),
    "DeepNorm, CR-CTC, half the batch": Change("DeepNorm", CR_CTC, DEEP_NORM, fewer_utterances=2),
}
