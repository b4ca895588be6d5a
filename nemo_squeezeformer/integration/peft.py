"""NeMo's adapters for the Squeezeformer encoder, and the registration of the encoder in NeMo's adapter registry."""

from __future__ import annotations

from nemo.collections.asr.parts.utils import adapter_utils
from nemo.core.classes.mixins import adapter_mixins
from omegaconf import DictConfig

from nemo_squeezeformer.integration.encoder import SqueezeformerEncoder


class SqueezeformerEncoderAdapter(SqueezeformerEncoder, adapter_mixins.AdapterModuleMixin):
    """The Squeezeformer encoder with NeMo's adapters in the layers.

    Linear adapters follow a layer. Attention adapters follow the attention module of a layer.
    """

    __module__ = "nemo_squeezeformer"

    def add_adapter(self, name: str, cfg: DictConfig) -> None:
        """Add an adapter with the configuration ``cfg`` and the width ``d_model`` to every layer.

        Raises:
            ValueError: The adapter has relative positions, but the attention of the encoder has other positions. The
                adapter is an attention adapter, but the attention is local.
        """
        model = self.attention.self_attention_model
        attends = (adapter_utils.MHA_ADAPTER_CLASSPATH, adapter_utils.RELMHA_ADAPTER_CLASSPATH)
        if cfg._target_ in attends and self.attention.local:
            raise ValueError(
                f"adapter {name!r} is an attention adapter, which NeMo cannot use with self_attention_model={model!r}; "
                "use a linear adapter, or self_attention_model='rel_pos'"
            )
        if cfg._target_ == adapter_utils.RELMHA_ADAPTER_CLASSPATH and not model.startswith("rel_pos"):
            raise ValueError(
                f"adapter {name!r} is a RelPositionMultiHeadAttentionAdapter, but self_attention_model={model!r} has "
                "no relative positions; use a MultiHeadAttentionAdapter, which has no positions"
            )
        cfg = adapter_utils.update_adapter_cfg_input_dim(self, cfg, module_dim=self.d_model)
        for layer in self.layers:
            layer.add_adapter(name, cfg)

    def is_adapter_available(self) -> bool:
        """Return True if any layer has an enabled adapter."""
        return any(layer.is_adapter_available() for layer in self.layers)

    def set_enabled_adapters(self, name: str | None = None, enabled: bool = True) -> None:
        """Enable or disable the adapter ``name`` in every layer. ``name=None`` selects all adapters."""
        for layer in self.layers:
            layer.set_enabled_adapters(name=name, enabled=enabled)

    def get_enabled_adapters(self) -> list[str]:
        """Return the names of the enabled adapters."""
        return sorted({name for layer in self.layers for name in layer.get_enabled_adapters()})

    def get_accepted_adapter_types(self) -> set[type]:
        """Return the supported types: linear adapters, and attention adapters with absolute or relative positions."""
        if not super().get_accepted_adapter_types():
            self.set_accepted_adapter_types(
                [
                    adapter_utils.LINEAR_ADAPTER_CLASSPATH,
                    adapter_utils.MHA_ADAPTER_CLASSPATH,
                    adapter_utils.RELMHA_ADAPTER_CLASSPATH,
                ]
            )
        return super().get_accepted_adapter_types()


if adapter_mixins.get_registered_adapter(SqueezeformerEncoder) is None:
    adapter_mixins.register_adapter(base_class=SqueezeformerEncoder, adapter_class=SqueezeformerEncoderAdapter)
