"""NeMo's ASR models with PEFT adapters in our encoder."""

from __future__ import annotations

from typing import Any

import torch
from nemo.collections.asr.parts.submodules.adapters import multi_head_attention_adapter_module as attention
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig

from tests.samples.asr_models import asr_model

LINEAR = LinearAdapterConfig(in_features=16, dim=4)
ATTENTION = {
    "rel_pos": attention.RelPositionMultiHeadAttentionAdapterConfig(n_head=2, n_feat=16),
    "abs_pos": attention.MultiHeadAttentionAdapterConfig(n_head=2, n_feat=16),
    "tiny": attention.RelPositionMultiHeadAttentionAdapterConfig(n_head=1, n_feat=16, proj_dim=-1),
}
NAMES = ["houlsby", "attention"]  # none within another, nor within a parameter's name: NeMo loads by substring


def adapted_model(kind: str = "ctc", position: str = "rel_pos", names: list[str] = NAMES, **settings: Any) -> Any:
    """A model with adapters by ``names`` whose weights are no longer the identity."""
    settings = {"encoder": {"self_attention_model": position.replace("tiny", "rel_pos")}, **settings}
    model = asr_model(kind, **settings)
    model.replace_adapter_compatible_modules()
    for name in names:
        model.add_adapter(name, ATTENTION[position] if name.endswith("attention") else LINEAR)
    return model.eval()


def move(model: Any) -> None:
    """Moves every adapter away from the identity that it starts as."""
    torch.manual_seed(1)
    for name, parameter in model.encoder.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(parameter, std=0.1)
