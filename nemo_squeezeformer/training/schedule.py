"""Additions to NeMo's learning-rate schedule: the peak rate for the global batch, and the warm-up of short runs.

The recipes call OmegaConf resolvers, for example ``${squeezeformer.peak_lr:}``. The function ``register`` registers
these resolvers. NeMo resolves the configuration of a model when NeMo builds the model. Saved models therefore contain
plain numbers.
"""

import math
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import groups, removed_settings, run_length
from nemo_squeezeformer.training.devices import accelerator
from nemo_squeezeformer.training.global_batch import global_batch
from nemo_squeezeformer.training.settings import value


def register() -> None:
    """Register the resolvers of the recipes with OmegaConf. A second call is safe."""
    from omegaconf import OmegaConf

    resolvers: dict[str, Callable[..., Any]] = {
        "peak_lr": _peak_lr,
        "new_rate": _new_rate,
        "short_warm_up": _short_warm_up,
        "unless": _unless,
        "on_cuda": _on_cuda,
        "time_masks": _time_masks,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"squeezeformer.{name}", _only_in_recipes(name, resolver), replace=True)
    for name in removed_settings.RESOLVERS:
        OmegaConf.register_new_resolver(name, partial(removed_settings.refuse_resolver, name), replace=True)


def _only_in_recipes(name: str, resolver: Callable[..., Any]) -> Callable[..., Any]:
    """Return a resolver that refuses the configuration in a file of a saved model, which is not the user's own text."""

    @wraps(resolver)  # OmegaConf reads the names of the arguments
    def resolve(*given: Any, **context: Any) -> Any:
        if _is_restored():
            raise UserError(
                f"${{squeezeformer.{name}:...}} is in the configuration of a saved model, but it belongs in a recipe; "
                "NeMo saves plain numbers, so another program has changed this file: replace it by the original file"
            )
        return resolver(*given, **context)

    return resolve


def _is_restored() -> bool:
    """Return True while NeMo restores a model from a file."""
    app_state = sys.modules.get("nemo.utils.app_state")
    if app_state is None or not app_state.AppState().is_model_being_restored:
        return False
    # After an error NeMo does not reset the state, but the folder of the unpacked file is removed.
    folder = app_state.AppState().nemo_file_folder
    return folder is None or os.path.isdir(folder)


def forget_failed_restore() -> None:
    """Correct NeMo's state after the restoring of a model has failed in this process.

    With the wrong state, NeMo builds the next model without its data.
    """
    app_state = sys.modules.get("nemo.utils.app_state")
    if app_state is not None and not _is_restored():
        app_state.AppState().is_model_being_restored = False


def _on_cuda(*, _root_: Any) -> bool:
    return accelerator(value(_root_, "trainer.accelerator", "auto")) == "cuda"


def _unless(steps: int | None, ratio: float, *, _root_: Any) -> float | None:
    """Return ``ratio``, a fraction of the run, or None if ``steps`` is given.

    NeMo accepts only ``steps`` or ``ratio``.
    """
    check(_root_)  # in a run with NeMo's own scripts, only this resolver calls check
    return ratio if steps is None else None


def _short_warm_up(ratio: float, *, _parent_: Any, _root_: Any) -> int | None:
    """Return 1 if ``ratio`` of ``trainer.max_steps`` is less than one step, otherwise None.

    NeMo's NoamHoldAnnealing fails without a warm-up step. Also return None if the user sets ``warmup_ratio``, because
    NeMo accepts only one of ``warmup_steps`` and ``warmup_ratio``.
    """
    from omegaconf import OmegaConf

    written = OmegaConf.to_container(_parent_, resolve=False)
    ours = isinstance(written, dict) and "${squeezeformer." in str(written.get("warmup_ratio"))
    return 1 if ours and 0 < ratio * value(_root_, "trainer.max_steps", 0) < 1 else None


def _time_masks(factor: float, *, _root_: Any) -> int:
    """Return the number of time masks of the size, times ``factor``, rounded down."""
    masks = value(_root_, "spec_augment.time_masks")
    if masks is None:
        raise UserError(
            "loss=cr_ctc changes the number of time masks that the size sets, but this recipe has no size; add "
            "model.spec_augment.time_masks=NUMBER"
        )
    return int(factor * masks)


def _peak_lr(*, _root_: Any) -> float | None:
    return None if value(_root_, "model.train_ds") is None else peak_lr(_root_)


def _new_rate(*, _root_: Any) -> float | None:
    """Return the peak learning rate of the modules that fine-tuning starts untrained."""
    rate, factor = value(_root_, "model.optim.lr"), value(_root_, "fine_tuning.new_decoder_rate", 1)
    return float(f"{factor * rate:.4g}") if isinstance(rate, (int, float)) else None


def check(cfg: Any) -> None:
    """Refuse a composed recipe that uses removed settings, or whose run would not start, end or validate.

    Also refuse an optimizer, a schedule or an augmentation with settings that do not belong together.

    Raises:
        UserError: the recipe has one of these problems. The message names the setting, the value and the remedy.
    """
    removed_settings.refuse_settings(cfg)
    run_length.check(cfg)
    groups.check(cfg)


def peak_lr(cfg: Any) -> float:
    """Return the peak learning rate for the global batch of the recipe.

    The published peak belongs to the published global batch. If the global batch is smaller, the function multiplies
    the peak by the square root of (global batch / published global batch).

    Raises:
        UserError: the recipe has no published peak, or the global batch is 0.
    """
    published, batch = value(cfg, "schedule.peak_lr"), value(cfg, "schedule.peak_lr_batch")
    if not all(isinstance(each, (int, float)) and each > 0 for each in (published, batch)):
        given = f"schedule.peak_lr={published} and schedule.peak_lr_batch={batch}"
        raise UserError(f"{given}: both must be numbers above 0; a size (for example size=s) sets both")
    share = min(1.0, global_batch(cfg).utterances / batch)
    return float(f"{published * math.sqrt(share):.4g}")  # rounded, because saved models show this number


def summary(cfg: Any) -> str:
    """Return one line with the global batch and the peak learning rate.

    NeMo itself shows the number of steps when training starts.

    Raises:
        UserError: ``global_batch`` or ``peak_lr`` refuses the recipe.
    """
    from omegaconf import OmegaConf

    batch = global_batch(cfg)
    if value(cfg, "schedule") is None:  # a recipe of NeMo, whose schedules interpret the rate in their own ways
        curve = value(cfg, "model.optim.sched.name", "no schedule")
        given = f"model.optim.lr={value(cfg, 'model.optim.lr')} and {curve}"
        return f"Learning rate of the recipe: {given}, for a global batch of {batch.utterances:,.4g} ({batch.words})"
    asked = "${squeezeformer.peak_lr:" in OmegaConf.to_yaml(cfg)
    rate = peak_lr(cfg) if asked else value(cfg, "model.optim.lr")
    return (
        f"Squeezeformer's learning-rate schedule: peak {rate} for a global batch of {batch.utterances:,.4g} "
        f"({batch.words})"
    )


def keep_warm_up(model: Any) -> None:
    """Set one warm-up step if ``warmup_ratio`` gives less than one step in a run of few epochs.

    Without a warm-up step, NeMo's NoamHoldAnnealing fails at the end of the hold. The number of steps of an epoch is
    known only after the model has set up the data. The resolver ``short_warm_up`` handles runs with a small
    ``max_steps``.
    """
    from nemo.utils import logging
    from omegaconf import open_dict

    ratio = value(model.cfg, "optim.sched.warmup_ratio")
    if not ratio:
        return
    with open_dict(model.cfg):
        model.cfg.optim.sched.update({"warmup_steps": 1, "warmup_ratio": None})
        with logging.temp_verbosity(logging.ERROR):
            _, made = model.setup_optimization()
        if made is None or ratio * made["scheduler"].max_steps >= 1:  # NeMo's number of steps
            model.cfg.optim.sched.update({"warmup_steps": None, "warmup_ratio": ratio})
