"""The Squeezeformer speech encoder for NVIDIA NeMo.

Importing this package makes NeMo know the encoder, its recipes and its old checkpoints, without loading NeMo or torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from nemo_squeezeformer.integration.register import install

__version__ = "0.1.0"
__all__ = ["OriginalMelSpectrogramPreprocessor", "SqueezeformerEncoder", "SqueezeformerEncoderAdapter"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        # NeMo's registry of adapters must know both encoders as soon as there is one.
        module = "original_preprocessor" if name.startswith("Original") else "peft"
        return getattr(importlib.import_module(f"nemo_squeezeformer.integration.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


install(resolvers="nemo_squeezeformer.training.schedule")
