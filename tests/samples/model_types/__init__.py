"""The requirements for a test of each kind of NeMo model: its data, its size and its outputs.

``test_every_recipe.py`` uses this table for every recipe in conf/. It composes the recipe in every size, trains it for
two steps, saves the model and restores it in another process. A recipe that is missing in the table is tested as speech
recognition. To add another kind of model:

- Write a ``ModelType``. Add it to ``MODEL_TYPES`` of ``recognition`` or ``other_models`` under the name of its class,
  which is the last part of ``model_target``.
- If a recipe differs from other recipes of its class, add it under its own name. This entry has precedence.
"""

from __future__ import annotations

from typing import Any

from hydra.utils import get_class

from tests.samples.model_types import other_models, recognition
from tests.samples.model_types.model_type import ModelType, tokenized

MODEL_TYPES = recognition.MODEL_TYPES | other_models.MODEL_TYPES


def model_type(recipe: str, target: str) -> ModelType:
    """Return the model type of ``recipe``, whose ``model_target`` is ``target``."""
    name = recipe if recipe in MODEL_TYPES else target.rpartition(".")[2]
    return MODEL_TYPES.get(name) or ModelType(tokenized)


def model_class(target: str) -> Any:
    """Return the class with this name, or None if this NeMo does not have the class."""
    try:
        return get_class(target)
    except Exception:  # Hydra's exceptions, or any exception of the import
        return None
