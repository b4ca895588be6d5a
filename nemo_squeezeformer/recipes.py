"""Recipes by name or by file: found, composed, and held against what is on disk before anything slow begins."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from nemo_squeezeformer import schedule
from nemo_squeezeformer.epoch import manifest_files
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.schedule import value

CONF = "nemo_squeezeformer.conf"
SOURCES = ("manifest_filepath", "cuts_path", "shar_path", "input_cfg", "hf_data_cfg")  # of data, in NeMo


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in files(CONF).iterdir() if entry.name.endswith(".yaml"))


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """A recipe's OmegaConf configuration with Hydra's overrides.

    Args:
        recipe: a name in ``recipes()``, or a path to a YAML file, whose ``defaults`` may name our recipes and groups.

    Raises:
        UserError: no such recipe, or Hydra refuses it or an override.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    schedule.register()
    path = Path(recipe).expanduser()
    place: Any
    if recipe in recipes():
        place = hydra.initialize_config_module(CONF, version_base=None)
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        place = hydra.initialize_config_dir(str(path.resolve().parent), version_base=None)
    else:
        raise UserError(f"no recipe {recipe}: give one of {', '.join(recipes())}, or a path to a YAML file")
    try:
        with place:
            return hydra.compose(path.name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"recipe {recipe}: {error}") from error


def check(cfg: Any, audio: bool = True) -> None:
    """Find what training would meet late or never: missing manifests, unreadable audio, no tokenizer, wrong characters.

    Counts ``model.labels`` from the training manifests where it is null, in place.

    Raises:
        UserError: naming the key, its value and the remedy.
    """
    for split in ("train_ds", "validation_ds"):
        named = any(value(cfg, f"model.{split}.{source}") for source in SOURCES)
        if value(cfg, f"model.{split}") is not None and not named:
            raise UserError(f"model.{split}.manifest_filepath is not set; add model.{split}.manifest_filepath=PATH")
    if value(cfg, "model.tokenizer") is not None:
        _check_tokenizer(cfg)
    for split in ("train_ds", "validation_ds", "test_ds"):
        _check_manifests(cfg, split, audio)
    if "labels" in cfg.model and value(cfg, "model.tokenizer") is None:
        _check_labels(cfg)


def _check_tokenizer(cfg: Any) -> None:
    folder, kind = value(cfg, "model.tokenizer.dir"), value(cfg, "model.tokenizer.type")
    file = {"bpe": "tokenizer.model", "wpe": "vocab.txt"}.get(str(kind).lower())
    if file is None or value(cfg, "model.tokenizer.model_path"):  # an aggregate, or a file named outright: NeMo's
        return
    if folder is not None and os.path.isfile(os.path.join(folder, file)):
        return
    problem = "model.tokenizer.dir is not set" if folder is None else f"model.tokenizer.dir={folder} has no {file}"
    manifest = next(manifest_files(value(cfg, "model.train_ds.manifest_filepath")), "MANIFEST")
    command = f"nemo-squeezeformer tokenizer {manifest} --vocab-size 128 --output {folder or 'tokenizer'}"
    raise UserError(f"{problem}; make one by: {command}")


def _check_manifests(cfg: Any, split: str, audio: bool) -> None:
    from nemo_squeezeformer import manifests

    named = value(cfg, f"model.{split}.manifest_filepath")
    for path in (path for path in manifest_files(named) if "://" not in path):
        if not os.path.isfile(path):
            raise UserError(f"model.{split}.manifest_filepath={named}: there is no file {path}")
        if audio and not value(cfg, f"model.{split}.is_tarred") and not value(cfg, f"model.{split}.use_lhotse"):
            manifests.check(path)


def _check_labels(cfg: Any) -> None:
    """Count null labels from the training text; warn of characters without a label, which NeMo drops in silence."""
    from nemo.utils import logging
    from omegaconf import open_dict

    named = value(cfg, "model.train_ds.manifest_filepath")
    seen: Counter[str] = Counter()
    for path in filter(os.path.isfile, manifest_files(named)):
        with open(path, encoding="utf-8") as lines:
            seen.update(letter for line in filter(str.strip, lines) for letter in json.loads(line).get("text") or "")
    labels = value(cfg, "model.labels")
    if labels is None and not seen:
        raise UserError(f"model.labels=null, and {named} has no text to count characters from; list the labels")
    if labels is None:
        with open_dict(cfg):
            cfg.model.labels = sorted(seen)
        logging.info(f"model.labels, counted from the training text: {''.join(sorted(seen))!r}")
    elif unknown := {letter: number for letter, number in seen.most_common() if letter not in labels}:
        logging.warning(
            f"{sum(unknown.values()):,} of {sum(seen.values()):,} characters of the training text are not in "
            f"model.labels and will be left out: {''.join(unknown)!r}; model.labels=null takes the text's own"
        )
