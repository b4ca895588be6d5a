"""The Squeezeformer speech encoder for NVIDIA NeMo.

The import of this package registers the encoder, the recipes and the class names of old checkpoints with NeMo. The
import does not load NeMo or torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from nemo_squeezeformer.integration.register import install

__version__ = "0.1.0"
__all__ = ["OriginalMelSpectrogramPreprocessor", "SqueezeformerEncoder", "SqueezeformerEncoderAdapter"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        # Each encoder comes from the module peft, because the import of peft registers the encoder for NeMo's adapters.
        module = "original_preprocessor" if name.startswith("Original") else "peft"
        from nemo_squeezeformer.process import extras

        with extras.named(f"{__name__}.{name}"):
            return getattr(importlib.import_module(f"{__name__}.integration.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


install(resolvers="nemo_squeezeformer.training.schedule")
