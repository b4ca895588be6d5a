"""A model from a checkpoint of its training, a .ckpt file of Lightning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.saved_settings import TOKENIZER_FILES, model_class

TRAINING = ("train_ds", "validation_ds", "test_ds", "optim")  # sections that a model needs only in training


def is_checkpoint(name: str) -> bool:
    """Return True if ``name`` is an existing .ckpt file."""
    return Path(name).suffix == ".ckpt" and Path(name).is_file()


def build(path: str, device: Any) -> Any:
    """Return the model with the weights of the checkpoint ``path`` on ``device``.

    The checkpoint contains the configuration of the model. The tokenizer is read from the folder of the training run.
    A checkpoint that contains other objects than weights, plain values and configurations is refused.

    Raises:
        UserError: the file is damaged or contains objects that can run code, has no configuration, or the tokenizer is
            missing.
    """
    import nemo.collections.asr.models  # noqa: F401  the configuration in the file has types of this package
    from omegaconf import open_dict

    from nemo_squeezeformer.integration.resuming.checkpoint_contents import read_data

    found = read_data(path)
    config, weights = (found.get("hyper_parameters") or {}).get("cfg"), found.get("state_dict")
    if config is None or not weights:
        raise UserError(
            f"{path} does not have the configuration and the weights of a model of NeMo; give the .nemo file of the "
            f"run, {_archive(path)}"
        )
    config = config.copy()
    with open_dict(config):
        training = {section: config.pop(section) for section in TRAINING if section in config}
    _require_tokenizer(path, config)
    model = model_class(path, config)(cfg=config)  # NeMo would open the data of the training
    model.load_state_dict(weights)
    with open_dict(model.cfg):
        model.cfg.update(training)
    return model.to(device).eval()


def _require_tokenizer(path: str, config: Any) -> None:
    settings = config.get("tokenizer") or {}
    languages = settings.get("langs") or {}
    for each in languages.values() if languages else [settings]:
        name, usual = TOKENIZER_FILES.get(str(each.get("type")).lower(), ("", ""))
        file = name and (each.get(name) or os.path.join(str(each.get("dir") or ""), usual))
        if file and not os.path.isfile(file):
            raise UserError(
                f"{path} was trained with the tokenizer {file}, and there is no such file; run the command in the "
                f"folder of the training, or give the .nemo file of the run, which contains the tokenizer: "
                f"{_archive(path)}"
            )


def _archive(path: str) -> str:
    """Return the .nemo file beside a checkpoint, or a description of its place."""
    return str(next(Path(path).parent.glob("*.nemo"), "checkpoints/NAME.nemo in its folder"))
