"""The Squeezeformer layer as NeMo extends it: PEFT adapters between its modules, its output on record."""

from __future__ import annotations

from nemo.collections.asr.parts.submodules.adapters.attention_adapter_mixin import AttentionAdapterModuleMixin
from nemo.core.classes.mixins import AccessMixin
from torch import Tensor

from nemo_squeezeformer.core.attention import RelPositionAttention
from nemo_squeezeformer.core.frames import Frames
from nemo_squeezeformer.core.layer import SqueezeformerLayer as CoreLayer
from nemo_squeezeformer.core.streaming import LayerState


class SqueezeformerLayer(CoreLayer, AttentionAdapterModuleMixin, AccessMixin):
    """The core's layer, with adapters where NeMo 2.7.3 has them and, on request, its output for NeMo's models.

    An attention adapter's output enters the first feed-forward module but not the residual beside it. ConformerLayer's
    enters both; Squeezeformer adapters that exist were trained this way, and keep working.
    """

    def forward(self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None = None) -> Tensor:
        """x: (B, T, D), positions: (2S - 1, D) or None -> (B, T, D)"""
        if self.is_adapter_available():
            x = self.forward_with_adapters(x, frames, positions, state)
        else:
            x = super().forward(x, frames, positions, state)
        if self.is_access_enabled(getattr(self, "model_guid", None)) and self.access_cfg.get("save_encoder_tensors"):
            self.register_accessible_tensor(name="encoder", tensor=x)
        return x

    def forward_with_adapters(
        self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
    ) -> Tensor:
        attended = self.self_attn(self.self_attn_scale(x), frames, positions, state)
        x = self.norm_self_att(x + self.dropout(attended))
        adapted = self.adapt(x, "mha", att_mask=frames.blocked, pos_emb=None if positions is None else positions[None])
        x = self.norm_feed_forward1(x + self.dropout(self.feed_forward1(self.feed_forward1_scale(adapted))))
        x = self.norm_conv(x + self.dropout(self.conv(self.conv_scale(x), frames, state)))
        x = self.norm_feed_forward2(x + self.dropout(self.feed_forward2(self.feed_forward2_scale(x))))
        return self.adapt(x, "post")

    def adapt(self, x: Tensor, location: str, **attention: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D) through the enabled adapters that belong at ``location``."""
        return self.forward_enabled_adapters({"x": x, "loc": location, **attention})["x"]

    @property
    def self_attention_model(self) -> str:
        """What NeMo asks to know which arguments an attention adapter takes."""
        return "rel_pos" if isinstance(self.self_attn, RelPositionAttention) else "abs_pos"
