"""The recipe of ``train --from MODEL``, from the file of the model and the settings in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import CONFIG, check_archive, read_member
from nemo_squeezeformer.training.fine_tuning import model_differences
from nemo_squeezeformer.training.fine_tuning import recipe as fine_tuning
from nemo_squeezeformer.training.settings import value

KEYS = ("init_from_nemo_model", "init_from_pretrained_model")  # NeMo's settings for the same purpose


def recipe_of(model: str, overrides: Sequence[str], folder: Path, option: str = "--from") -> tuple[Any, str, list[str]]:
    """Return the recipe for the fine-tuning of a model, a line about the kept parts, and differences of the features.

    Args:
        model: a .nemo file, or the name of a pretrained model.
        overrides: Hydra's overrides.
        folder: an empty folder for the tokenizer of the model. It must exist until the trained model is saved.
        option: the option of the command that gave the model, for messages.

    Raises:
        UserError: the model does not exist, the file is damaged or unsafe, or ``fine_tuning.compose`` refuses it.
    """
    from nemo_squeezeformer.transcription.saved_settings import read_settings

    path = model_file(model, option)
    members = check_archive(path)
    config = read_settings(path, read_member(path, members[CONFIG]), set(members))
    cfg, change = fine_tuning.compose(path, config, folder, overrides, option)
    differences = model_differences.of_features(value(config, "preprocessor", {}), value(cfg, "model.preprocessor", {}))
    return cfg, fine_tuning.summary(cfg, path, change), list(differences)


def asked_for(model: str | None, recipe: str | None, overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the model to start from, or None, and the overrides.

    Args:
        model: the value of ``--from``.
        recipe: the first argument of the command line. With ``--from``, it is an override.
        overrides: the other arguments.

    Raises:
        UserError: a recipe is given together with ``--from``, or the recipe for fine-tuning is given without a model.
    """
    rest = list(overrides)
    if recipe == fine_tuning.RECIPE:
        named = [each.partition("=")[2] for each in rest if each.lstrip("+").partition("=")[0] in KEYS]
        model = model or next(iter(named), None)
        if model is None:
            raise UserError(f"{recipe} needs a model; add --from MODEL.nemo, or init_from_nemo_model=MODEL.nemo")
    elif model is not None and recipe is not None:
        if "=" not in recipe:
            raise UserError(
                f"--from {model} takes the recipe from the file, so the recipe {recipe} has no meaning; remove "
                f"{recipe}, or give the weights with +init_from_nemo_model={model}"
            )
        rest.insert(0, recipe)
    return model, rest


def model_file(name: str, option: str) -> str:
    """Return the path of a .nemo file. A pretrained model is fetched.

    Args:
        name: a path, or the name of a pretrained model.
        option: the option of the command, for messages.

    Raises:
        UserError: the file does not exist, is not a .nemo file, or the pretrained model cannot be fetched.
    """
    path = Path(name).expanduser()
    if path.suffix == ".ckpt":
        raise UserError(
            f"{option} {name}: a .ckpt file does not contain the tokenizer; give the .nemo file of the run, which "
            "lies beside the .ckpt file"
        )
    if path.suffix in (".h5", ".hdf5"):
        raise UserError(
            f"{option} {name}: a file of TensorFlow does not contain the settings of the model; first make a .nemo "
            "file with `nemo-squeezeformer import`"
        )
    if path.is_file():
        return str(path)
    if path.is_dir() or path.suffix == ".nemo" or path.is_absolute():
        raise UserError(f"{option} {name}: there is no such file; give a .nemo file or the name of a pretrained model")
    from nemo.collections.asr.models import ASRModel

    try:
        return str(ASRModel.from_pretrained(name, return_model_file=True))
    except UserError:
        raise
    except Exception as error:  # the model hub, the network and the cache raise many kinds of errors
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise UserError(
            f"{option} {name}: this is not a file, and it could not be fetched as a pretrained model ({reason}); check "
            "the name and the network, or download the .nemo file and give its path"
        ) from error
