"""What NeMo's learning-rate schedule leaves to us: the peak rate for the global batch, and a warm-up of short runs.

The recipes ask by OmegaConf resolvers (``${squeezeformer.peak_lr:}`` and so on), which ``register`` makes known. NeMo
resolves a model's configuration when it builds the model, so that saved models hold plain numbers.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import removed_settings, run_length
from nemo_squeezeformer.training.devices import accelerator
from nemo_squeezeformer.training.global_batch import global_batch
from nemo_squeezeformer.training.settings import value


def register() -> None:
    """Make the resolvers of the recipes known to OmegaConf; safe to call again."""
    from omegaconf import OmegaConf

    resolvers: dict[str, Callable[..., Any]] = {
        "peak_lr": _peak_lr,
        "short_warm_up": _short_warm_up,
        "unless": _unless,
        "on_cuda": _on_cuda,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"squeezeformer.{name}", resolver, replace=True)
    for name in removed_settings.RESOLVERS:
        OmegaConf.register_new_resolver(name, partial(removed_settings.refuse_resolver, name), replace=True)


def _on_cuda(*, _root_: Any) -> bool:
    return accelerator(value(_root_, "trainer.accelerator", "auto")) == "cuda"


def _unless(steps: int | None, ratio: float, *, _root_: Any) -> float | None:
    """A share of the run, unless its steps are given: NeMo takes one or the other."""
    check(_root_)  # in NeMo's own scripts nothing else would
    return ratio if steps is None else None


def _short_warm_up(ratio: float, *, _parent_: Any, _root_: Any) -> int | None:
    """One step where ``ratio`` of ``trainer.max_steps`` is none, with which NeMo's NoamHoldAnnealing fails.

    Null where somebody has given another ratio: NeMo takes one or the other.
    """
    from omegaconf import OmegaConf

    written = OmegaConf.to_container(_parent_, resolve=False)
    ours = isinstance(written, dict) and "${squeezeformer." in str(written.get("warmup_ratio"))
    return 1 if ours and 0 < ratio * value(_root_, "trainer.max_steps", 0) < 1 else None


def _peak_lr(*, _root_: Any) -> float | None:
    return None if value(_root_, "model.train_ds") is None else peak_lr(_root_)


def check(cfg: Any) -> None:
    """Refuse a composed recipe whose run has no end, or that asks for what is gone.

    Raises:
        UserError: naming the setting, its value and the remedy.
    """
    removed_settings.refuse_settings(cfg)
    run_length.check(cfg)


def peak_lr(cfg: Any) -> float:
    """The published peak learning rate; a smaller global batch takes the square root of its share of the published one.

    Raises:
        UserError: the recipe has no published peak, or a global batch of 0.
    """
    published, batch = value(cfg, "schedule.peak_lr"), value(cfg, "schedule.peak_lr_batch")
    if not published or not batch:
        given = f"schedule.peak_lr={published} and schedule.peak_lr_batch={batch}"
        raise UserError(f"{given} must be above 0; a size (size=s) sets both")
    share = min(1.0, global_batch(cfg).utterances / batch)
    return float(f"{published * math.sqrt(share):.4g}")  # rounded: it will stand in saved models


def summary(cfg: Any) -> str:
    """The global batch and the peak learning rate in a line; NeMo shows the steps itself when training starts.

    Raises:
        UserError: as ``global_batch`` and ``peak_lr`` do.
    """
    from omegaconf import OmegaConf

    batch = global_batch(cfg)
    asked = "${squeezeformer.peak_lr:" in OmegaConf.to_yaml(cfg)
    rate = peak_lr(cfg) if asked else value(cfg, "model.optim.lr")
    return (
        f"Squeezeformer's learning-rate schedule: peak {rate} for a global batch of {batch.utterances:,.4g} "
        f"({batch.words})"
    )


def keep_warm_up(model: Any) -> None:
    """Give a run of few epochs one step of warm-up where the share of the run makes none.

    NeMo's NoamHoldAnnealing fails without a warm-up, when the hold is over. How many steps the epochs have is known
    only to a model with its data; the resolver ``short_warm_up`` sees to runs of few ``max_steps``.
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
        if made is None or ratio * made["scheduler"].max_steps >= 1:  # the steps of the run as NeMo counts them
            model.cfg.optim.sched.update({"warmup_steps": None, "warmup_ratio": ratio})
