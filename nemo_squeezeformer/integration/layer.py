"""The layers with NeMo's PEFT adapters between their modules."""

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
    """A base class for layers with NeMo's adapters and a registry for outputs that NeMo's models request."""

    def adapt(self, after: str, x: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Apply the enabled adapters: (B, T, D) -> (B, T, D).

        Args:
            after: ``attention`` for the adapters after attention, ``layer`` for the adapters after the layer.

        Raises:
            ValueError: an attention adapter is enabled in a stream with left context; it has no cache of past frames.
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
        """Raise ValueError if an attention adapter is enabled. Linear adapters see one frame at a time."""
        for name in self.get_enabled_adapters():
            if not isinstance(self.adapter_layer[name], LinearAdapter):
                raise ValueError(
                    f"attention adapter {name!r} does not stream: the caches hold the inputs of the layer's attention, "
                    f"not the inputs of the adapter; disable it (set_enabled_adapters({name!r}, enabled=False)), use a "
                    "linear adapter, or stream with a left context of 0"
                )

    @property
    def self_attention_model(self) -> str:
        """The attention model. NeMo reads it to choose the arguments of an attention adapter."""
        return self.self_attn.model


class SqueezeformerLayer(CoreSqueezeformerLayer, Adapted):
    """The layer of core, with adapters at the positions of NeMo 2.7.3.

    The output of an attention adapter enters the first feed-forward module but not its residual connection. In
    ConformerLayer it enters both. Existing Squeezeformer adapters were trained this way, and they continue to work.
    """

    adapt = Adapted.adapt


class MFCFLayer(CoreMFCFLayer, Adapted):
    """The layer of core, with adapters at the positions of SqueezeformerLayer."""

    adapt = Adapted.adapt


class GatedMFCFLayer(CoreGatedMFCFLayer, Adapted):
    """The layer of core, with adapters at the positions of SqueezeformerLayer."""

    adapt = Adapted.adapt


class ConformerLayer(CoreConformerLayer, Adapted):
    """The Conformer layer of core, with adapters at the positions of NeMo's ConformerLayer."""

    adapt = Adapted.adapt
