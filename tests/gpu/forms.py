"""The encoders of the tests in this folder: all kinds of attention, with the masks and the head sizes of recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.attention.selection import FORMS, MODELS
from tests.samples.encoders import features, small_encoder

LOCAL = "rel_pos_local_attn"
FULL_MODELS = [model for model in MODELS if model != LOCAL]  # attention in several forms
FAST_FORMS = [form for form in FORMS if form != "plain"]
MASKS: dict[str, dict[str, Any]] = {
    "all frames": {},
    "window": {"att_context_size": [16, 8]},
    "chunks": {"att_context_size": [16, 7], "att_context_style": "chunked_limited"},
}
WINDOW = MASKS["window"] | {"self_attention_model": LOCAL}
TOKENS = WINDOW | {"global_tokens": 3, "global_tokens_spacing": 5, "global_attn_separate": True}
HEADS = {"s": 49, "m": 81}  # widths of an attention head in two sizes; neither is a multiple of 8

# The settings of an encoder, and the settings of the encoder with the same weights whose result is expected.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
for model in FULL_MODELS:
    for form in FAST_FORMS:
        for name, mask in MASKS.items():
            given = mask | {"self_attention_model": model}
            CASES[f"{model}, {form}, {name}"] = given | {"attention": form}, given | {"attention": "plain"}
        wide = {"self_attention_model": model, "d_model": 2 * HEADS["m"]}
        CASES[f"{model}, {form}, head of size m"] = wide | {"attention": form}, wide | {"attention": "plain"}
# All other cases are slow tests.
FAST = {f"{model}, auto, {what}" for model in FULL_MODELS for what in ("all frames", "chunks", "head of size m")}
FAST |= {"rel_pos, sdpa, all frames", "rope, blocks, window", "local, global tokens"}
CASES["local"] = WINDOW, MASKS["window"] | {"attention": "plain"}
CASES["local, global tokens"] = TOKENS, TOKENS
EACH_CASE = pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)


def encoder(device: str, settings: dict[str, Any], **changes: Any) -> SqueezeformerEncoder:
    """Return an encoder with a temporal U-Net on ``device``, in evaluation. Equal shapes get equal weights."""
    common = {"n_layers": 3, "d_model": 2 * HEADS["s"], "n_heads": 2, "subsampling_conv_channels": 16}
    return small_encoder(**({"time_reduce_idx": 1} | common | settings | changes)).to(device)


def batch(device: str, lengths: Sequence[int] = (403, 250, 1)) -> tuple[Tensor, Tensor]:
    """Return features (B, 20, T) of utterances of the given lengths, and the lengths (B,)."""
    return features(len(lengths), max(lengths)).to(device), torch.tensor(lengths).to(device)
