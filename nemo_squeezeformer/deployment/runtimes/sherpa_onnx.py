"""The folder for sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings

FILES = ("model.onnx", "encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt", "README.md")


def check(model: Any, settings: GraphSettings) -> None:
    """Raise UserError if sherpa-onnx cannot run the model."""
    raise NotImplementedError


def write(model: Any, folder: Path, settings: GraphSettings) -> None:
    """Write the files for sherpa-onnx to the empty folder ``folder``."""
    raise NotImplementedError
