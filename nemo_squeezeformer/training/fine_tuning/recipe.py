"""The recipe for the fine-tuning of a model: the settings of the file, and the data and the schedule of a new run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import recipes
from nemo_squeezeformer.training.fine_tuning.tokenizer_of_file import unpacked_tokenizer
from nemo_squeezeformer.training.fine_tuning.vocabulary_change import Change, change_vocabulary
from nemo_squeezeformer.training.initial_weights import SIZE
from nemo_squeezeformer.training.settings import value

RECIPE = "squeezeformer_finetune"
# Peak learning rate of fine-tuning, as a fraction of the peak learning rate in the file.
KEPT_VOCABULARY, NEW_VOCABULARY = 0.1, 0.5
USUAL_RATE = 1e-3  # the peak learning rate in a file without a schedule
SHAPED = ("size", "rate", "positions")  # groups of the other recipes that change the network
# Settings that an override cannot change, because the shapes of the weights depend on them.
FIXED = ("preprocessor.features", *(f"encoder.{name}" for name in SIZE))
# Sections of a file that belong to the run that wrote the file.
OF_THE_RUN = ("train_ds", "validation_ds", "test_ds", "optim", "freeze_updates", "optim_param_groups", "nemo_version")
OF_THE_VOCABULARY = ("tokenizer", "labels", "target")


def compose(
    path: str, config: Any, folder: Path, overrides: Sequence[str] = (), option: str = "--from"
) -> tuple[Any, Change]:
    """Return the composed recipe for the fine-tuning of a model, and the change of the vocabulary.

    Args:
        path: the .nemo file.
        config: the configuration in the file.
        folder: an existing folder. It gets the tokenizer of the file, and must exist until the model is saved.
        overrides: Hydra's overrides.
        option: the option of the command that names the model, for messages.

    Raises:
        UserError: the file is not a CTC, transducer or hybrid model, an override changes the size, the frame rate,
            the number of mel bands or the positions of attention, Hydra refuses an override, or the new vocabulary is
            not valid.
    """
    from omegaconf import OmegaConf

    for override in overrides:
        group = override.lstrip("+~").partition("=")[0]
        if group in SHAPED:
            raise UserError(
                f"{override}: a fine-tuned model keeps the size, the frame rate and the positions of its file "
                f"({shape(config)}); remove {override}, or train a new model with {override} and without {option}"
            )
    model: Any = OmegaConf.to_container(config, resolve=True)
    labels = own_labels(model)
    tokenizer = unpacked_tokenizer(path, model["tokenizer"], folder) if model.get("tokenizer") else None
    written = {
        "defaults": [f"/finetune/{RECIPE}", "_self_"],
        "model_target": model.get("target"),
        "model": {name: part for name, part in model.items() if name not in (*OF_THE_RUN, *OF_THE_VOCABULARY)},
        "schedule": {"peak_lr": peak_lr(model, KEPT_VOCABULARY)},
    }
    recipe = folder / f"{RECIPE}.yaml"
    OmegaConf.save(OmegaConf.create(written), recipe)
    # Files of other versions lack settings of the encoder. The encoder refuses settings that it does not have.
    given = [f"++{each}" if each.startswith("model.encoder.") else each for each in overrides]
    try:
        cfg = recipes.compose(str(recipe), given)
    except UserError as error:  # the user does not know the composed recipe
        raise UserError(str(error).replace(f"recipe {recipe}", f"{option} {path}")) from error
    for setting in FIXED:
        there, here = value(config, setting), value(cfg, f"model.{setting}")
        if there is not None and here != there:
            raise UserError(
                f"model.{setting}={here}: the weights in {path} have {setting}={there}; remove model.{setting}={here}, "
                f"or train a new model without {option}"
            )
    change = change_vocabulary(cfg, path, labels, tokenizer)
    if change.new and not any(each.lstrip("+").startswith("schedule.peak_lr=") for each in overrides):
        cfg.schedule.peak_lr = peak_lr(model, NEW_VOCABULARY)
    return cfg, change


def own_labels(model: dict[str, Any]) -> list[str]:
    """Return the characters of a model without a tokenizer, or the sub-words in the configuration of another model."""
    sections = (model.get("decoder"), model.get("joint"), (model.get("aux_ctc") or {}).get("decoder"))
    lists = [model.get("labels"), *((section or {}).get("vocabulary") for section in sections)]
    return next(([str(label) for label in each] for each in lists if each), [])


def peak_lr(model: dict[str, Any], share: float) -> float:
    """Return the peak learning rate for fine-tuning: ``share`` of the peak in the configuration of the file.

    Files without a schedule do not say with which rate they were trained, for example files of
    ``nemo-squeezeformer import``.
    """
    optim = model.get("optim") or {}
    rate, sched = optim.get("lr"), optim.get("sched") or {}
    if not isinstance(rate, (int, float)) or not sched:
        rate = USUAL_RATE
    elif sched.get("name") == "NoamAnnealing":  # lr is a factor of this schedule
        width, steps = sched.get("d_model"), sched.get("warmup_steps")
        rate = rate / math.sqrt(width * steps) if width and steps else USUAL_RATE
    return float(f"{share * rate:.4g}")


def shape(config: Any) -> str:
    """Return the size of the encoder of a configuration in words."""
    layers, width = value(config, "encoder.n_layers"), value(config, "encoder.d_model")
    return f"{layers} layers of width {width}"


def summary(cfg: Any, path: str, change: Change) -> str:
    """Return one line about what is kept and what starts untrained."""
    words = f"fine-tuning {path} ({shape(cfg.model)}): {change.words}"
    if not change.new:
        return words
    frozen, factor = value(cfg, "fine_tuning.frozen_epochs", 0), value(cfg, "fine_tuning.new_decoder_rate", 1)
    words += f"; their learning rate is {factor:g} times the learning rate of the encoder"
    if frozen:
        words += f"; the encoder is frozen for {frozen:g} epochs"
    return words
