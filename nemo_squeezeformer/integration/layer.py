"""The layers as NeMo extends them, with PEFT adapters between their modules."""

from __future__ import annotations

from nemo.collections.asr.parts.submodules.adapters.attention_adapter_mixin import AttentionAdapterModuleMixin
from nemo.collections.common.parts.adapter_modules import LinearAdapter
from nemo.core.classes.mixins import AccessMixin
from torch import Tensor

from nemo_squeezeformer.core.conformer import ConformerLayer as CoreConformerLayer
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.layer import SqueezeformerLayer as CoreSqueezeformerLayer
from nemo_squeezeformer.core.mf_cf import GatedMFCFLayer as CoreGatedMFCFLayer
from nemo_squeezeformer.core.mf_cf import MFCFLayer as CoreMFCFLayer


class Adapted(AttentionAdapterModuleMixin, AccessMixin):
    """What a layer has through NeMo: adapters, and a registry for its output where one of NeMo's models wants it."""

    def adapt(self, after: str, x: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """x: (B, T, D) -> (B, T, D) through the enabled adapters that belong after ``attention`` or ``layer``.

        Raises:
            ValueError: for attention adapters in a stream that remembers frames, as they have no memory of theirs.
        """
        if not self.is_adapter_available():
            return x
        if after == "layer":
            return self.forward_enabled_adapters({"x": x, "loc": "post"})["x"]
        if frames.past:
            self.refuse_attention_adapters()
        pos_emb = None if positions is None else positions[None]
        given = {"x": x, "loc": "mha", "att_mask": frames.blocked, "pos_emb": pos_emb}
        return self.forward_enabled_adapters(given)["x"]

    def refuse_attention_adapters(self) -> None:
        """Raises ValueError where one is enabled; linear adapters see one frame at a time."""
        for name in self.get_enabled_adapters():
            if not isinstance(self.adapter_layer[name], LinearAdapter):
                raise ValueError(
                    f"attention adapter {name!r} does not stream: caches hold what the layer's own attention sees, "
                    f"not what its adapters would; disable it (set_enabled_adapters({name!r}, enabled=False)), use a "
                    "linear adapter, or stream with a left context of 0"
                )

    @property
    def self_attention_model(self) -> str:
        """What NeMo asks to know which arguments an attention adapter takes."""
        return self.self_attn.model


class SqueezeformerLayer(CoreSqueezeformerLayer, Adapted):
    """The core's layer, with adapters where NeMo 2.7.3 has them.

    An attention adapter's output enters the first feed-forward module but not the residual beside it. ConformerLayer's
    enters both; Squeezeformer adapters that exist were trained this way, and keep working.
    """

    adapt = Adapted.adapt


class MFCFLayer(CoreMFCFLayer, Adapted):
    """The core's, with adapters where SqueezeformerLayer has them."""

    adapt = Adapted.adapt


class GatedMFCFLayer(CoreGatedMFCFLayer, Adapted):
    """The core's, with adapters where SqueezeformerLayer has them."""

    adapt = Adapted.adapt


class ConformerLayer(CoreConformerLayer, Adapted):
    """The core's Conformer layer, with adapters where NeMo's ConformerLayer has them."""

    adapt = Adapted.adapt
