"""Functions that find, compose and check recipes. A check runs before any slow work."""

import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import devices, groups, initial_weights, removed_settings, schedule
from nemo_squeezeformer.training.data import is_named, manifest_files
from nemo_squeezeformer.training.data_checks import left_out, text_check
from nemo_squeezeformer.training.data_checks.manifest_checks import characters, check_manifests, require_manifests
from nemo_squeezeformer.training.devices import accelerator
from nemo_squeezeformer.training.mistakes import interrupted_runs, misspelt, nemo_recipes
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import SPLITS

CUDA_LOSS = "multiblank_rnnt"  # a loss of NeMo that needs CUDA, without an equal loss in this package
ABLATION = "ablation"  # the folder of the paper's steps from Conformer to Squeezeformer


def recipes(folder: str = "") -> list[str]:
    """Return the names of the recipes in the folder ``conf`` of this package.

    If ``folder`` is given, return the names of the recipes in this folder, for example ``ablation/1_unet``.
    """
    place = files(groups.CONF).joinpath(folder) if folder else files(groups.CONF)
    names = sorted(entry.name.removesuffix(".yaml") for entry in place.iterdir() if entry.name.endswith(".yaml"))
    return [f"{folder}/{name}" if folder else name for name in names]


def every_recipe() -> list[str]:
    """Return the names of all recipes, including the paper's steps from Conformer to Squeezeformer."""
    return [*recipes(), *recipes(ABLATION)]


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """Return the OmegaConf configuration of a recipe with Hydra's overrides.

    Args:
        recipe: a name in ``every_recipe()``, or a path to a YAML file. The ``defaults`` of the file can name recipes
            and configuration groups of this package.

    Raises:
        UserError: the recipe does not exist, Hydra refuses the recipe or an override, or a setting hides the choice of
            ``positions``.
    """
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    schedule.register()
    removed_settings.refuse_overrides(overrides)
    path, ours = Path(recipe).expanduser(), every_recipe()
    place: Any
    if recipe in ours:
        place = hydra.initialize_config_module(groups.CONF, version_base=None)
    elif path.suffix == ".yml" and path.is_file():
        raise UserError(f"recipe {recipe}: Hydra reads only files that end with .yaml; rename the file")
    elif path.suffix == ".yaml" and path.is_file():
        place = hydra.initialize_config_dir(str(path.resolve().parent), version_base=None)
    else:
        meant = misspelt.most_similar(recipe.removesuffix(".yaml"), ours)
        named = "`nemo-squeezeformer train --list` shows all names"
        if meant:
            names = f"did you mean {meant}? {named}"
        elif path.suffix or len(path.parts) > 1:
            names = f"{'this is not a YAML file' if path.is_file() else 'there is no such file'}; {named}"
        else:
            names = f"give one of {', '.join(ours)}"
        raise UserError(f"no recipe {recipe}: {names}, or give a path to a YAML file")
    try:
        with place:
            cfg = hydra.compose(recipe if recipe in ours else path.name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        line = _one_line(str(error))
        if "Could not override 'loss'" in line:
            raise UserError(f"recipe {recipe}: {groups.WITHOUT_CTC}") from error
        if meant := _meant(line, recipe if overrides else ""):
            line = f"{line.partition('. To append to your config')[0]}; did you mean {meant}?"
        raise UserError(f"recipe {recipe}: {line}") from error
    except yaml.YAMLError as error:
        raise UserError(f"recipe {recipe} is not valid YAML ({_one_line(str(error))}); correct this line") from error
    groups.check_positions(cfg, overrides)
    return cfg


def _meant(error: str, recipe: str) -> str:
    """Return the setting of the recipe that is probably meant by the setting that Hydra could not override, or ""."""
    found = re.search(r"Could not override '([^']+)'", error)
    if found and found[1] == "resume":  # the group of no recipe
        return "+resume"
    meant = misspelt.similar_setting(found[1], compose(recipe)) if found and recipe else ""
    return "" if found and meant == found[1] else meant  # the name of a group that this recipe does not have


def _one_line(error: str) -> str:
    """Return Hydra's message as one line, without the search path and without a hint that is wrong for our groups."""
    kept = error.partition("Config search path:")[0].partition("To append to your default list")[0]
    line = re.sub(r"\s+", " ", kept).strip()
    return line.replace(". No match in the defaults list.", ": the recipe does not have this group")


def build(cfg: Any, trainer: Any = None) -> Any:
    """Return the untrained model that a composed recipe describes.

    Args:
        trainer: the Lightning trainer; None if the model will not be trained.

    Raises:
        UserError: see ``model_class``.
    """
    made = model_class(cfg)
    schedule.forget_failed_restore()
    return made(cfg=cfg.model, trainer=trainer)


def model_class(cfg: Any) -> Any:
    """Return NeMo's class of the model that a composed recipe describes.

    Raises:
        UserError: the recipe names no model, or the installed NeMo does not contain the model.
    """
    from hydra.utils import get_class

    path = target(cfg)
    try:
        return get_class(path)
    except ImportError as error:
        raise UserError(
            f"model_target={path}: this NeMo does not contain the class ({_one_line(str(error))})"
        ) from error


def target(cfg: Any) -> str:
    """Return the path of the NeMo class that a composed recipe names, or that the sections of the recipe belong to.

    Raises:
        UserError: the recipe names no class, and its sections belong to no class or to several classes.
    """
    path = value(cfg, "model_target") or value(cfg, "model.target") or nemo_recipes.model_of(cfg)
    if path is None:
        raise UserError(
            "the recipe does not say which model to build; add "
            "+model_target=nemo.collections.asr.models.EncDecCTCModelBPE, or another model of NeMo"
        )
    return str(path)


def check(cfg: Any, audio: bool = True, text: bool = True) -> None:
    """Check a composed recipe for errors that training would report late or never.

    The check finds unreadable manifests and audio, text that the model cannot learn, and a loss or a compilation that
    the accelerator does not support. Call ``check_names`` first. The check does not change the recipe. ``fill_labels``
    sets labels that are null.

    Args:
        audio: if True, also compare each row of the manifests with the audio file of the row.
        text: if True, also compare the text of the manifests with the vocabulary and the frame rate (``text_check``).

    Raises:
        UserError: the recipe has an error. The message names the setting, the value and the remedy.
    """
    _check_loss(cfg)
    _check_compile(cfg)
    for split in SPLITS:
        check_manifests(cfg, split, audio)
    if audio or text:
        left_out.check(cfg)
    if text:
        text_check.check(cfg)


def check_names(cfg: Any) -> None:
    """Check the names of settings, files and the accelerator in a composed recipe.

    The check needs less than a second, because it imports neither NeMo nor PyTorch, and reads no file of data.

    Raises:
        UserError: a setting or a file does not exist, this machine does not have the accelerator, or a run that resumes
            does not find its checkpoints.
    """
    from omegaconf import OmegaConf

    misspelt.check(cfg)
    devices.check(cfg)
    interrupted_runs.check(cfg)
    if not value(cfg, "exp_manager.resume_if_exists"):  # a resumed run takes the weights from its checkpoint
        initial_weights.check_files(cfg)
    for split in SPLITS:
        section = value(cfg, f"model.{split}")
        if section is not None and split != "test_ds" and not is_named(section):
            raise UserError(f"model.{split}.manifest_filepath is not set; add model.{split}.manifest_filepath=PATH")
        require_manifests(cfg, split)
    check_tokenizers(cfg)
    if OmegaConf.is_missing(cfg.model, "labels"):
        raise UserError("model.labels is not set; add model.labels=[...], with one label for each output of the model")


def check_tokenizers(cfg: Any) -> None:
    """Check the folders of the tokenizers in a composed recipe.

    Raises:
        UserError: the folder of a tokenizer is not set, or lacks a file.
    """
    languages = value(cfg, "model.tokenizer.langs", {})
    for section in ("model.tokenizer", *(f"model.tokenizer.langs.{name}" for name in languages)):
        _check_tokenizer(cfg, section)


def _check_loss(cfg: Any) -> None:
    loss, given = value(cfg, "model.loss.loss_name"), value(cfg, "trainer.accelerator", "auto")
    if loss == CUDA_LOSS and accelerator(given) != "cuda":
        raise UserError(
            f"model.loss.loss_name={loss}: NeMo has this loss for CUDA only, and trainer.accelerator={given} does "
            "not select CUDA here; train on a GPU, or use model.loss.loss_name=default"
        )


def _check_compile(cfg: Any) -> None:
    given = value(cfg, "trainer.accelerator", "auto")
    if value(cfg, "model.encoder.compile", False) and accelerator(given) == "cpu":
        raise UserError(
            f"model.encoder.compile=true with trainer.accelerator={given}: on a CPU, PyTorch compiles the layers again "
            "for new lengths, which takes minutes each time; use model.encoder.compile=false, or train on a GPU"
        )


def _check_tokenizer(cfg: Any, section: str) -> None:
    folder, kind = value(cfg, f"{section}.dir"), value(cfg, f"{section}.type")
    file = {"bpe": "tokenizer.model", "wpe": "vocab.txt"}.get(str(kind).lower())
    if file is None or value(cfg, f"{section}.model_path"):  # NeMo checks these tokenizers
        return
    if folder is not None and os.path.isfile(os.path.join(folder, file)):
        # NeMo needs vocab.txt in the folder of tokenizer.model to save a model.
        if file == "vocab.txt" or value(cfg, f"{section}.vocab_path") or os.path.isfile(f"{folder}/vocab.txt"):
            return
        command = f"nemo-squeezeformer tokenizer {os.path.join(folder, file)} --output {folder.rstrip('/')}-nemo"
        raise UserError(
            f"{section}.dir={folder} has {file} but no vocab.txt, which NeMo needs; create a folder with all files "
            f"with: {command}"
        )
    problem = f"{section}.dir is not set" if folder is None else f"{section}.dir={folder} has no {file}"
    manifest = next(manifest_files(value(cfg, "model.train_ds.manifest_filepath")), "MANIFEST")
    command = f"nemo-squeezeformer tokenizer {manifest} --vocab-size 128 --output {folder or 'tokenizer'}"
    if section.endswith(".spl_tokens"):
        command = f"NeMo's CanaryTokenizer.build_special_tokenizer(['transcribe', 'en'], {folder or 'spl_tokens'!r})"
    raise UserError(f"{problem}; create a tokenizer with: {command}")


def fill_labels(cfg: Any) -> None:
    """Set ``model.labels`` to the characters of the training text if the labels are null.

    A recipe with a tokenizer is not changed.

    Raises:
        UserError: the training manifests have no text.
    """
    from nemo.utils import logging
    from omegaconf import open_dict

    if "labels" not in cfg.model or cfg.model.labels is not None or value(cfg, "model.tokenizer") is not None:
        return
    named = value(cfg, "model.train_ds.manifest_filepath")
    letters = sorted(characters(named))
    if not letters:
        raise UserError(f"model.labels=null, but {named} has no text and therefore no characters; list the labels")
    with open_dict(cfg):
        cfg.model.labels = letters
    logging.info(f"model.labels, taken from the training text: {''.join(letters)!r}")
