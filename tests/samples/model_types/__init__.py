"""What it takes to try each kind of NeMo model: its data, its size, and what it gives out.

``test_every_recipe.py`` takes every recipe in conf/ through this table: composed in every size, trained for two steps,
saved, restored in another process. A recipe that is not here is tried as plain speech recognition. For other kinds:

- write a ``ModelType`` and enter it in ``MODEL_TYPES`` of ``recognition`` or ``other_models`` under its class, the last
  word of ``model_target``;
- a recipe that differs from others of its class goes in under its own name, which wins.
"""

from __future__ import annotations

from typing import Any

from hydra.utils import get_class

from tests.samples.model_types import other_models, recognition
from tests.samples.model_types.model_type import ModelType, tokenized

MODEL_TYPES = recognition.MODEL_TYPES | other_models.MODEL_TYPES


def model_type(recipe: str, target: str) -> ModelType:
    """How to try ``recipe``, whose ``model_target`` is ``target``."""
    name = recipe if recipe in MODEL_TYPES else target.rpartition(".")[2]
    return MODEL_TYPES.get(name) or ModelType(tokenized)


def model_class(target: str) -> Any:
    """NeMo's class of that name, or None where this NeMo has none."""
    try:
        return get_class(target)
    except Exception:  # Hydra's own kinds, or whatever importing the module raises
        return None
