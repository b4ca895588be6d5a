"""The layers of ``core`` with NeMo's adapters. An adapter can follow the attention module or the layer."""

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
    """A base class that adds NeMo's adapters and a registry of recorded outputs to the layers."""

    def adapt(self, after: str, x: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Apply the enabled adapters: (B, T, D) -> (B, T, D).

        Args:
            after: ``attention`` for the adapters after attention, ``layer`` for the adapters after the layer.

        Raises:
            ValueError: an attention adapter is enabled in a stream with left context. Attention adapters have no cache
                of past frames.
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
        """Raise ValueError if an attention adapter is enabled.

        Linear adapters are allowed, because a linear adapter processes each frame separately.
        """
        for name in self.get_enabled_adapters():
            if not isinstance(self.adapter_layer[name], LinearAdapter):
                raise ValueError(
                    f"attention adapter {name!r} does not stream: the caches contain the past of the attention of the "
                    f"layer, not the past of the adapter; disable the adapter (set_enabled_adapters({name!r}, "
                    "enabled=False)), use a linear adapter, or stream with a left context of 0"
                )

    @property
    def self_attention_model(self) -> str:
        """The attention model. NeMo reads this property to choose the arguments of an attention adapter.

        With rotary positions, attention adapters get no positions, as with absolute positions.
        """
        return "abs_pos" if self.self_attn.model == "rope" else self.self_attn.model


class SqueezeformerLayer(CoreSqueezeformerLayer, Adapted):
    """The Squeezeformer layer of core, with adapters at the positions of NeMo 2.7.3.

    The output of an attention adapter is an input of the first feed-forward module, but not of the residual connection
    around this module. In ConformerLayer the output is an input of the module and of the residual connection. Existing
    Squeezeformer adapters were trained with the positions of NeMo 2.7.3, and these adapters continue to work.
    """

    adapt = Adapted.adapt


class MFCFLayer(CoreMFCFLayer, Adapted):
    """The MFCFLayer of core, with adapters at the same positions as in SqueezeformerLayer."""

    adapt = Adapted.adapt


class GatedMFCFLayer(CoreGatedMFCFLayer, Adapted):
    """The GatedMFCFLayer of core, with adapters at the same positions as in SqueezeformerLayer."""

    adapt = Adapted.adapt


class ConformerLayer(CoreConformerLayer, Adapted):
    """The Conformer layer of core, with adapters at the same positions as in NeMo's ConformerLayer."""

    adapt = Adapted.adapt
