"""onnx-asr with exported folders, with its own features and with given features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_asr
import torch

Features = tuple[np.ndarray, np.ndarray]  # (1, F, T) and the length (1,)


def load(folder: Path) -> Any:
    """Return the model in ``folder``. The folder contains the type of the model."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return onnx_asr.load_model(kind, folder, providers=["CPUExecutionProvider"])


def features_of(model: Any, samples: np.ndarray) -> Features:
    """Return the features of NeMo."""
    features, lengths = model.preprocessor(
        input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
    )
    return features[:, :, : lengths[0]].numpy(), lengths.numpy()


def recognized_from(loaded: Any, features: Sequence[Features], recordings: Sequence[np.ndarray]) -> list[str]:
    """Return the texts for given features. ``loaded`` cannot compute features after this call."""
    texts = []
    for given, samples in zip(features, recordings):
        loaded.asr._preprocessor = lambda *_, given=given: given
        texts.append(loaded.recognize(samples))
    return texts
