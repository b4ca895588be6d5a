"""The layers as NeMo extends them, with PEFT adapters between their modules."""

from __future__ import annotations

from nemo.collections.asr.parts.submodules.adapters.attention_adapter_mixin import AttentionAdapterModuleMixin
from nemo.collections.common.parts.adapter_modules import LinearAdapter
from nemo.core.classes.mixins import AccessMixin
from torch import Tensor

from nemo_squeezeformer.core.conformer import ConformerLayer as CoreConformerLayer
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.frames.state import LayerState
from nemo_squeezeformer.core.layer import SqueezeformerLayer as CoreSqueezeformerLayer
from nemo_squeezeformer.core.mf_cf import MFCFLayer as CoreMFCFLayer


class Adapted(AttentionAdapterModuleMixin, AccessMixin):
    """What a layer has through NeMo: adapters, and a registry for its output where one of NeMo's models wants it."""

    def adapt(self, x: Tensor, location: str, **attention: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D) through the enabled adapters that belong at ``location``."""
        return self.forward_enabled_adapters({"x": x, "loc": location, **attention})["x"]

    def adapt_attention(self, x: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D) through the enabled attention adapters.

        Raises:
            ValueError: in a stream that remembers frames, as these adapters have no memory of theirs.
        """
        if frames.past:
            self.refuse_attention_adapters()
        return self.adapt(x, "mha", att_mask=frames.blocked, pos_emb=None if positions is None else positions[None])

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

    def forward(self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None = None) -> Tensor:
        """x: (B, T, D), positions: (S + T - 1, D) or None -> (B, T, D)"""
        if self.is_adapter_available():
            return self.forward_with_adapters(x, frames, positions, state)
        return super().forward(x, frames, positions, state)

    def forward_with_adapters(
        self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
    ) -> Tensor:
        attended = self.self_attn(self.self_attn_scale(x), frames, positions, state)
        x = self.norm_self_att(x + self.dropout(attended))
        adapted = self.adapt_attention(x, frames, positions)
        x = self.norm_feed_forward1(x + self.dropout(self.feed_forward1(self.feed_forward1_scale(adapted))))
        x = self.norm_conv(x + self.dropout(self.conv(self.conv_scale(x), frames, state)))
        x = self.norm_feed_forward2(x + self.dropout(self.feed_forward2(self.feed_forward2_scale(x))))
        return self.adapt(x, "post")


class MFCFLayer(SqueezeformerLayer, CoreMFCFLayer):
    """The core's, with adapters where SqueezeformerLayer has them."""


class GatedMFCFLayer(MFCFLayer):
    """The core's, with adapters where SqueezeformerLayer has them."""

    gated = True


class ConformerLayer(CoreConformerLayer, Adapted):
    """The core's Conformer layer, with adapters where NeMo's ConformerLayer has them."""

    def forward(self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None = None) -> Tensor:
        """x: (B, T, D), positions: (S + T - 1, D) or None -> (B, T, D)"""
        if self.is_adapter_available():
            return self.forward_with_adapters(x, frames, positions, state)
        return super().forward(x, frames, positions, state)

    def forward_with_adapters(
        self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
    ) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(x)))
        x = x + self.dropout(self.self_attn(self.norm_self_att(x), frames, positions, state))
        x = self.adapt_attention(x, frames, positions)
        x = x + self.dropout(self.conv(self.norm_conv(x), frames, state))
        x = x + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(x)))
        return self.adapt(self.norm_out(x), "post")
