"""Checks of the optimizer, the schedule, the augmentation, the positions and the loss of a recipe.

The groups ``optim``, ``sched``, ``augment``, ``positions`` and ``loss`` of ``conf/`` compose settings that belong
together. A single override, for example ``model.optim.name=sgd``, keeps the settings of another optimizer. The errors
name the group.
"""

import inspect
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.settings import value

CONF = "nemo_squeezeformer.conf"
# Settings of NeMo that do not belong to the class of the optimizer or of the schedule.
NEMOS = {
    "optim": {"name", "sched", "lr"},
    "sched": {"name", "max_steps", "last_epoch", "monitor", "reduce_on_plateau", "iters_per_batch"},
}
SAME_CURVE = {"NoamAnnealing": "inverse_sqrt"}  # a schedule of NeMo without a group: the group with the same curve
CHANGES_OF_TIME = ("speed", "time_stretch")
ATTENTION = "model.encoder.self_attention_model"
WITHOUT_CTC = (
    "the group loss is for recipes with a CTC decoder: the recipes whose names contain ctc, and ablation/*. Recipes "
    "with only a transducer, and recipes for translation, classes, speakers, voice activity or self-supervised "
    "training, have no CTC decoder; use one of the recipes with a CTC decoder, or remove loss=... from the command"
)
NOISE = "model.train_ds.augmentor.noise.manifest_path"


@cache
def choices(group: str) -> dict[str, dict[str, Any]]:
    """Return the settings that each choice of the group ``optim`` or ``sched`` writes, by the name of the choice."""
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for entry in sorted(files(CONF).joinpath(group).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            written = yaml.safe_load(entry.read_text(encoding="utf-8")) or {}
            optim = written.get("model", {}).get("optim", {})
            found[entry.name.removesuffix(".yaml")] = optim if group == "optim" else optim.get("sched", {})
    return found


def check(cfg: Any) -> None:
    """Refuse a composed recipe whose optimizer, schedule, augmentation or loss does not belong to its other settings.

    Raises:
        UserError: NeMo would fail when it builds the optimizer or the schedule, the manifest of the noise is missing,
            the augmentation would move labels of frames, or the model has no CTC decoder for ``loss=cr_ctc``. The
            message names the setting and the group.
    """
    optim = _written(cfg, "model.optim")
    if optim is not None:
        _check_settings("optim", optim)
        if isinstance(optim.get("sched"), dict):
            _check_settings("sched", optim["sched"])
    _check_augmentation(cfg)
    if value(cfg, "consistency") is not None and not _has_ctc(cfg):
        raise UserError(f"loss=cr_ctc: {WITHOUT_CTC}")


def check_positions(cfg: Any, overrides: Iterable[str]) -> None:
    """Refuse a choice of the group ``positions`` in the overrides that another setting of the recipe hides.

    Raises:
        UserError: the attention of the composed recipe is not the attention of the choice.
    """
    import yaml

    for choice in (text.partition("=")[2] for text in overrides if text.startswith("positions=")):
        file = files(CONF).joinpath("positions", f"{choice}.yaml")
        if not file.is_file():  # a choice in a folder of the user
            continue
        written = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["encoder"]["self_attention_model"]
        if (found := value(cfg, ATTENTION)) != written:
            raise UserError(
                f"positions={choice} has no effect, because the recipe or the command has {ATTENTION}={found}; remove "
                "one of these settings. With positions=rope, model.encoder.att_context_size=[128,128] limits the "
                "attention to a window"
            )


def _has_ctc(cfg: Any) -> bool:
    decoder = str(value(cfg, "model.decoder._target_", ""))
    return decoder.endswith("ConvASRDecoder") or value(cfg, "model.aux_ctc") is not None


def _written(cfg: Any, key: str) -> dict[str, Any] | None:
    """Return a section without resolving it, because the resolvers of the schedule call ``check``."""
    from omegaconf import OmegaConf

    section = OmegaConf.select(cfg, key, default=None, throw_on_missing=False)
    return OmegaConf.to_container(section, resolve=False) if OmegaConf.is_dict(section) else None  # type: ignore


def _check_settings(group: str, given: Mapping[str, Any]) -> None:
    """Compare the names of the settings with the arguments of the class that NeMo builds."""
    key = "model.optim.name" if group == "optim" else "model.optim.sched.name"
    name, settings = given.get("name"), set(given) - NEMOS[group]
    known = choices(group)
    if name is None or {"args", "_target_"} & settings:
        return  # NeMo has other ways to name the class
    if any(name == choice.get("name") and settings <= set(choice) for choice in known.values()):
        return  # the usual case does not import NeMo
    takes, needs = _arguments(group, str(name))
    choice = str(name) if name in known else next((each for each in known if known[each].get("name") == name), None)
    choice = choice or SAME_CURVE.get(str(name))
    others = f"use one of {group}={'|'.join(known)}"
    if takes is None:
        raise UserError(f"{key}={name}: NeMo has no {'optimizer' if group == 'optim' else 'schedule'} {name}; {others}")
    remedy = f"use {group}={choice}, which replaces all settings of the group" if choice else others
    if strange := sorted(settings - takes):
        here = key.removesuffix(".name")
        removed = " ".join(f"~{here}.{each}" for each in strange)
        raise UserError(
            f"{key}={name}: {name} does not have the settings {', '.join(strange)} of the recipe; {remedy}, or remove "
            f"these settings with {removed}"
        )
    if missing := sorted(needs - settings):
        raise UserError(f"{key}={name}: {name} needs the settings {', '.join(missing)}; add them, or {remedy}")


def _arguments(group: str, name: str) -> tuple[set[str] | None, set[str]]:
    """Return the names of all arguments and of the required arguments of the class ``name`` of NeMo.

    The first result is None if NeMo does not have the class.
    """
    if group == "optim":
        from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS as classes
    else:
        from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS as classes
    if name not in classes:
        return None, set()
    takes, needs = set[str](), set[str]()
    for kind in inspect.getmro(classes[name]):
        arguments = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        named = [each for each in arguments.values() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
        new = {each.name: each for each in named if each.name not in takes}
        takes |= set(new)
        needs |= {each.name for each in new.values() if each.default is each.empty}
        if not any(each.kind is each.VAR_KEYWORD for each in arguments.values()):
            break
    return takes, needs - {"self", "params", "optimizer", "max_steps"}


def _check_augmentation(cfg: Any) -> None:
    used = _written(cfg, "model.train_ds.augmentor") or {}
    if isinstance(used.get("noise"), dict):
        manifest = value(cfg, NOISE)
        if manifest is None:
            raise UserError(
                f"augment=noise needs a manifest of noise recordings; add {NOISE}=noise.json, with audio_filepath and "
                "duration in each row"
            )
        for path in _paths(manifest):
            if "://" not in path and not os.path.isfile(os.path.expanduser(path)):
                raise UserError(f"{NOISE}={manifest}: there is no file {path}; correct the path, or set augment=none")
    moved = [name for name in CHANGES_OF_TIME if name in used]
    target = str(value(cfg, "model_target") or value(cfg, "model.target") or "")
    if moved and target.endswith("FrameClassificationModel"):
        raise UserError(
            f"model.train_ds.augmentor has {' and '.join(moved)}, which changes the length of the audio, but each "
            "label of this model belongs to a time in the audio; use augment=none or augment=noise"
        )


def _paths(manifest: Any) -> Iterable[str]:
    return manifest.split(",") if isinstance(manifest, str) else [str(path) for path in manifest]
