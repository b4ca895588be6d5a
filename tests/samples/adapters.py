"""NeMo's ASR models with PEFT adapters in this project's encoder."""

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
    "rope": attention.MultiHeadAttentionAdapterConfig(n_head=2, n_feat=16),
    "tiny": attention.RelPositionMultiHeadAttentionAdapterConfig(n_head=1, n_feat=16, proj_dim=-1),
}
# NeMo finds adapters by substring, so no name may be part of another name or of a parameter's name.
NAMES = ["houlsby", "attention"]


def adapted_model(kind: str = "ctc", position: str = "rel_pos", names: list[str] = NAMES, **settings: Any) -> Any:
    """Return a model in eval mode with new adapters called ``names``."""
    settings = {"encoder": {"self_attention_model": position.replace("tiny", "rel_pos")}, **settings}
    model = asr_model(kind, **settings)
    model.replace_adapter_compatible_modules()
    for name in names:
        model.add_adapter(name, ATTENTION[position] if name.endswith("attention") else LINEAR)
    return model.eval()


def move(model: Any) -> None:
    """Set the weights of all adapters to random values. A new adapter is the identity."""
    torch.manual_seed(1)
    for name, parameter in model.encoder.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(parameter, std=0.1)
