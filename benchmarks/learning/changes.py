"""The changes of a training that the bench compares with the unchanged training."""

from __future__ import annotations

from typing import Any, NamedTuple


class Change(NamedTuple):
    """A change of the recipe.

    Attributes:
        recipe: overrides of the recipe.
        encoder: settings of the encoder.
        views: how often the encoder sees each batch. The number of steps is divided by this number.
    """

    recipe: tuple[str, ...] = ()
    encoder: dict[str, Any] = {}  # noqa: RUF012  no code changes the dictionary
    views: int = 1


UNCHANGED = "unchanged"
CHANGES = {
    UNCHANGED: Change(),
    "DeepNorm": Change(encoder={"deep_norm": True}),
    "CR-CTC": Change(("loss=cr_ctc",), views=2),
    "DeepNorm, CR-CTC": Change(("loss=cr_ctc",), {"deep_norm": True}, views=2),
}
