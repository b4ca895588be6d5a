"""The input of `info`: a recipe, a YAML file, a .nemo file or a pretrained model.

The functions build the encoder, and the whole model if the configuration is sufficient for the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.finite_weights import complaint, not_finite
from nemo_squeezeformer.training import recipes
from nemo_squeezeformer.training.settings import value

if TYPE_CHECKING:
    from torch import nn

DATA = ("train_ds", "validation_ds", "test_ds")


@dataclass
class Source:
    """An encoder, and the model that contains the encoder.

    ``model`` is None if the configuration is sufficient only for the encoder. ``notes`` then contains the reason.
    """

    name: str
    encoder: nn.Module  # on the meta device
    model: Any
    config: Any  # the configuration of the model
    notes: list[str] = field(default_factory=list)


def is_recipe(name: str) -> bool:
    """Return True if ``name`` is a recipe of this package or a YAML file."""
    return name in recipes.every_recipe() or Path(name).suffix in (".yaml", ".yml")


def of_recipe(name: str, overrides: Sequence[str] = ()) -> Source:
    """Return the encoder of a recipe, and the whole model if the tokenizer, the labels and similar settings are given.

    Raises:
        UserError: the recipe does not exist, the recipe has no encoder, or the encoder rejects the settings.
    """
    cfg = recipes.compose(name, overrides)
    model_cfg = cfg.model if "model" in cfg else cfg  # model_config.yaml of a .nemo file has only the keys of the model
    if value(model_cfg, "encoder") is None:
        raise UserError(f"{name}: there is no model.encoder; give the recipe of a model with an encoder")
    _check_target(name, value(cfg, "model_target") or value(cfg, "model.target"))
    notes: list[str] = []
    model = _built(cfg, notes) if "model" in cfg else None
    encoder = model.encoder if model is not None else _encoder(name, model_cfg)
    return Source(" ".join([name, *overrides]), encoder.to("meta"), model, model_cfg, notes)


def of_model(name: str, verbose: bool = False) -> Source:
    """Return the encoder and the model of a .nemo file or of a pretrained model.

    Raises:
        UserError: the model does not exist, or the model has no encoder.
    """
    import torch

    from nemo_squeezeformer.transcription.models import restore

    if not Path(name).is_file() and "/" not in name:
        from nemo.collections.asr.models import ASRModel

        known = ASRModel.get_available_model_names()
        if name not in known:
            raise UserError(
                f"{name} is not a recipe, not a file, and not one of the {len(known)} pretrained models of this NeMo; "
                f"the recipes are {', '.join(recipes.recipes())}"
            )
    model = restore(name, torch.device("cpu"), verbose, finite=False)
    if getattr(model, "encoder", None) is None:
        raise UserError(
            f"{name} is of class {type(model).__name__}, which has no encoder; give a model with an encoder"
        )
    tensors = model.state_dict()
    wrong = not_finite(tensors)
    notes = [f"The model cannot transcribe: {complaint(wrong, len(tensors))}."] if wrong else []
    return Source(name, model.encoder.eval().to("meta"), model, model.cfg, notes)


def _check_target(name: str, target: Any) -> None:
    """Raise UserError if NeMo's list does not allow the class ``target``. Its module is not imported in this case."""
    from nemo.core.classes import common

    if target is not None and not str(target).startswith(tuple(common.ALLOWED_TARGET_PREFIXES)):
        raise UserError(
            f"{name}: model_target={target} is not a class of NeMo or of this package, so it is not imported; name "
            "a model of NeMo, for example nemo.collections.asr.models.EncDecCTCModelBPE"
        )


def _encoder(name: str, model_cfg: Any) -> Any:
    import nemo.collections.asr.modules  # noqa: F401  makes NeMo's encoders available to configurations
    from hydra.errors import InstantiationException
    from nemo.core.classes import Serialization
    from omegaconf.errors import OmegaConfBaseException

    missing = [key for key in _missing(model_cfg) if key.startswith("encoder.")]
    if missing:
        keys = ", ".join(f"model.{key}" for key in missing)
        raise UserError(f"{name}: {keys} is not set; add model.{missing[0]}=...")
    try:
        return Serialization.from_config_dict(model_cfg.encoder).eval()
    except (
        OmegaConfBaseException,
        InstantiationException,
        ImportError,
        TypeError,
        ValueError,
        AssertionError,
    ) as error:
        reason = error.__cause__ or error
        raise UserError(f"{name}: model.encoder cannot be built: {reason}") from error


def _built(cfg: Any, notes: list[str]) -> Any:
    """Build the whole model without the data sets, and return the model.

    If the model cannot be built, return None and add a note with the reason.
    """
    from omegaconf import open_dict

    cfg = cfg.copy()
    with open_dict(cfg):
        for split in DATA:
            cfg.model.pop(split, None)
    lacking = [f"model.{key}" for key in _missing(cfg.model)]
    lacking += [f"model.{key}" for key in ("labels", "tokenizer.dir") if _is_null(cfg.model, key)]
    if lacking:
        keys = ", ".join(dict.fromkeys(lacking))
        notes.append(f"Only the encoder is described: the model also needs {keys}, which is not set here.")
        return None
    try:
        return recipes.build(cfg).eval()
    except Exception as error:  # the model, its tokenizer and their libraries raise many kinds of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        notes.append(f"Only the encoder is described: the whole model could not be built ({reason}).")
        return None


def _is_null(cfg: Any, key: str) -> bool:
    """Return True if ``key`` exists in ``cfg`` and the value of ``key`` is null or ``???``."""
    section, _, last = key.rpartition(".")
    inside = value(cfg, section) if section else cfg
    return inside is not None and last in inside and value(cfg, key) is None


def _missing(model_cfg: Any) -> list[str]:
    """Return the keys of the model that have the value ``???``, without the keys of the data sets.

    Interpolations are not resolved. The interpolation of a learning rate would raise an error if the configuration
    does not set the end of the training.
    """
    from omegaconf import OmegaConf

    def keys(section: Any, above: str) -> Iterator[str]:
        for key, inside in section.items():
            if isinstance(inside, dict):
                yield from keys(inside, f"{above}{key}.")
            elif inside == "???":
                yield f"{above}{key}"

    written: Any = OmegaConf.to_container(model_cfg, resolve=False)
    return sorted(key for key in keys(written, "") if key.split(".")[0] not in DATA)
