"""PEFT adapters for the Squeezeformer encoder, through NeMo's adapter registry."""

from __future__ import annotations

from nemo.collections.asr.parts.utils import adapter_utils
from nemo.core.classes.mixins import adapter_mixins
from omegaconf import DictConfig

from nemo_squeezeformer.integration.encoder import SqueezeformerEncoder


class SqueezeformerEncoderAdapter(SqueezeformerEncoder, adapter_mixins.AdapterModuleMixin):
    """The encoder whose layers carry adapters: linear ones after a layer, attention ones after its attention."""

    __module__ = "nemo_squeezeformer"

    def add_adapter(self, name: str, cfg: DictConfig) -> None:
        """Adds an adapter of ``cfg`` to every layer, its width set to ``d_model``."""
        cfg = adapter_utils.update_adapter_cfg_input_dim(self, cfg, module_dim=self.d_model)
        for layer in self.layers:
            layer.add_adapter(name, cfg)

    def is_adapter_available(self) -> bool:
        """Whether any layer has an enabled adapter."""
        return any(layer.is_adapter_available() for layer in self.layers)

    def set_enabled_adapters(self, name: str | None = None, enabled: bool = True) -> None:
        """Switches the adapter called ``name``, or all of them, on or off in every layer."""
        for layer in self.layers:
            layer.set_enabled_adapters(name=name, enabled=enabled)

    def get_enabled_adapters(self) -> list[str]:
        """The names of the adapters that are on."""
        return sorted({name for layer in self.layers for name in layer.get_enabled_adapters()})

    def get_accepted_adapter_types(self) -> set[type]:
        """Linear adapters, and attention adapters with absolute or relative positions."""
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
