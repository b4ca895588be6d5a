"""The encoder with the class names of NeMo 2, and with the default of NeMo 2, which is no temporal U-Net.

In NeMo 2 files, a configuration without ``time_reduce_idx`` describes an encoder without a temporal U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo.core.classes.mixins import adapter_mixins

from nemo_squeezeformer.integration import encoder, peft
from nemo_squeezeformer.integration.old_names import ASR_MODULES, OLD_MODULE


class SqueezeformerEncoder(encoder.SqueezeformerEncoder):
    """``nemo_squeezeformer.SqueezeformerEncoder`` with the default ``time_reduce_idx=None``."""

    def __init__(
        self,
        feat_in: int,
        n_layers: int,
        d_model: int,
        time_reduce_idx: int | Sequence[int] | str | None = None,
        **settings: Any,
    ):
        super().__init__(feat_in, n_layers, d_model, time_reduce_idx=time_reduce_idx, **settings)


class SqueezeformerEncoderAdapter(SqueezeformerEncoder, peft.SqueezeformerEncoderAdapter):
    """The encoder with NeMo's adapters and with the default ``time_reduce_idx=None``."""


if adapter_mixins.get_registered_adapter(SqueezeformerEncoder) is None:
    adapter_mixins.register_adapter(base_class=SqueezeformerEncoder, adapter_class=SqueezeformerEncoderAdapter)

# In the configuration of a model, replace_adapter_compatible_modules replaces the first path by the second path.
_names = adapter_mixins.get_registered_adapter(SqueezeformerEncoder)
_names.base_class_path = f"{ASR_MODULES}.SqueezeformerEncoder"
_names.adapter_class_path = f"{OLD_MODULE}.SqueezeformerEncoderAdapter"
