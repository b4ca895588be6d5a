"""Checks that refuse removed settings of the learning-rate schedule. The error names the replacement."""

from collections.abc import Iterable
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.settings import value

COUNTED = "remove it, because NeMo counts the steps of the run; if NeMo cannot count the steps, set trainer.max_steps"
SETTINGS = {
    "schedule.warmup_epochs": "set model.optim.sched.warmup_ratio, a share of the run (20 of 500 epochs: 0.04)",
    "schedule.hold_epochs": "set model.optim.sched.hold_ratio, a share of the run (160 of 500 epochs: 0.32)",
    "schedule.hours": COUNTED,
    "schedule.steps_per_epoch": COUNTED,
}
RESOLVERS = {
    "squeezeformer.warmup_steps": "write warmup_steps: null and warmup_ratio: 0.04, a share of the run",
    "squeezeformer.hold_steps": "write hold_steps: null and hold_ratio: 0.32, a share of the run",
}


def refuse_overrides(overrides: Iterable[str]) -> None:
    """Refuse removed settings in Hydra's overrides.

    Without this check, Hydra's error would tell the user to add the setting.

    Raises:
        UserError: a setting was removed. The message names the setting and the replacement.
    """
    for name in (override.lstrip("+").partition("=")[0] for override in overrides):
        if name in SETTINGS:
            raise UserError(f"{name} was removed: {SETTINGS[name]}")


def refuse_settings(cfg: Any) -> None:
    """Refuse a composed recipe that has a removed setting or calls a removed resolver.

    Raises:
        UserError: a setting was removed. The message names the setting and the replacement.
    """
    from omegaconf import OmegaConf

    refuse_overrides(name for name in SETTINGS if value(cfg, name) is not None)
    written = OmegaConf.to_yaml(cfg)  # interpolations are not resolved
    for name in RESOLVERS:
        if f"${{{name}:" in written:
            refuse_resolver(name)


def refuse_resolver(name: str) -> None:
    raise UserError(f"${{{name}:}} was removed: {RESOLVERS[name]}")
