"""The folder for onnx-asr (https://github.com/istupakov/onnx-asr)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings

FILES = ("model.onnx", "encoder-model.onnx", "decoder_joint-model.onnx", "vocab.txt", "config.json", "README.md")


def check(model: Any, settings: GraphSettings) -> None:
    """Raise UserError if onnx-asr cannot run the model."""
    raise NotImplementedError


def write(model: Any, folder: Path, settings: GraphSettings) -> None:
    """Write the files for onnx-asr to the empty folder ``folder``."""
    raise NotImplementedError
