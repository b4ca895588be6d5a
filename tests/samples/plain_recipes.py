"""Recipes without overrides. To compose a recipe takes a quarter of a second, so several tests share the result."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from nemo_squeezeformer.training.recipes import compose


@cache
def plain(recipe: str) -> Any:
    """Return a composed recipe that cannot be changed."""
    cfg = compose(recipe)
    OmegaConf.set_readonly(cfg, True)
    return cfg
