"""The encoder settings of NeMo's Conformer recipes in a tiny size: offline, streaming, long audio and unified."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from nemo.collections.asr.modules import ConformerEncoder

NEW_IN_3 = {"att_chunk_context_size", "conv_context_style"}

# The settings of NeMo's recipes, except for the size. Recipes that are missing here differ only in their decoder.
CONFORMER = {
    "feat_out": -1,
    "subsampling": "striding",
    "subsampling_factor": 4,
    "subsampling_conv_channels": -1,
    "ff_expansion_factor": 4,
    "self_attention_model": "rel_pos",
    "att_context_size": [-1, -1],
    "xscaling": True,
    "untie_biases": True,
    "pos_emb_max_len": 5000,
    "conv_kernel_size": 31,
    "conv_norm_type": "batch_norm",
    "dropout": 0.1,
    "dropout_pre_encoder": 0.1,
    "dropout_emb": 0.0,
    "dropout_att": 0.1,
}
STOCHASTIC_DEPTH = {
    "stochastic_depth_drop_prob": 0.0,
    "stochastic_depth_mode": "linear",
    "stochastic_depth_start_layer": 1,
}
OFFLINE = {"causal_downsampling": False, "att_context_style": "regular", "conv_context_size": None} | STOCHASTIC_DEPTH
REDUCTION = {"reduction": None, "reduction_position": None, "reduction_factor": 1}
FAST = {"subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 256, "conv_kernel_size": 9}
CACHE_AWARE = {
    "causal_downsampling": True,
    "att_context_style": "chunked_limited",
    "att_context_probs": None,
    "conv_context_size": "causal",
    "conv_norm_type": "layer_norm",
} | STOCHASTIC_DEPTH
SDPA = {"use_pytorch_sdpa": False, "use_pytorch_sdpa_backends": []}
LONG = {
    "self_attention_model": "rel_pos_local_attn",
    "global_tokens": 1,
    "global_tokens_spacing": 1,
    "global_attn_separate": False,
    "att_context_size": [128, 128],
    "use_bias": True,
}
UNIFIED = {
    "att_context_style": "chunked_limited_with_rc",
    "att_chunk_context_size": [[70], [2, 14], [0, 2, 4]],
    "conv_context_style": "dcc",
}
RECIPES: dict[str, dict[str, Any]] = {
    "conformer multilang, ssl": CONFORMER,
    "conformer ctc, hat, hybrid": CONFORMER | OFFLINE,
    "conformer transducer": CONFORMER | OFFLINE | REDUCTION,
    "conformer ctc streaming": CONFORMER | CACHE_AWARE | {"att_context_size": [140, 27]},
    "conformer transducer streaming": CONFORMER | CACHE_AWARE | REDUCTION | {"att_context_size": [140, 27]},
    "fastconformer ctc": CONFORMER | OFFLINE | FAST | SDPA,
    "fastconformer transducer": CONFORMER | OFFLINE | FAST | REDUCTION | SDPA,
    "fastconformer hybrid": CONFORMER | STOCHASTIC_DEPTH | FAST | REDUCTION | {"use_bias": True},
    "fastconformer aed, translation": CONFORMER | FAST | REDUCTION | {"xscaling": False, "conv_context_size": None},
    "fastconformer streaming": CONFORMER | CACHE_AWARE | FAST | REDUCTION | {"att_context_size": [70, 13]},
    "fastconformer streaming, several": CONFORMER
    | CACHE_AWARE
    | FAST
    | {"att_context_size": [[70, 13], [72, 5], [70, 1]], "att_context_probs": [0.5, 0.25, 0.25]},
    "fastconformer streaming, odd chunks": CONFORMER
    | CACHE_AWARE
    | FAST
    | {"att_context_size": [[70, 13], [70, 6], [70, 1], [70, 0]]},
    "fastconformer long": CONFORMER | OFFLINE | FAST | REDUCTION | LONG,
    "fastconformer unified": CONFORMER | FAST | UNIFIED,
    "sdpa": CONFORMER | FAST | {"use_pytorch_sdpa": True, "use_pytorch_sdpa_backends": ["MATH"], "use_bias": False},
}
TINY = {"n_layers": 4, "d_model": 16, "n_heads": 4, "conv_kernel_size": 7}


def parameters(encoder: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(encoder).parameters)


def recipe(name: str, **changes: Any) -> dict[str, Any]:
    settings = RECIPES[name] | TINY | changes
    if settings["subsampling_conv_channels"] > 0:
        settings["subsampling_conv_channels"] = 8
    if missing := NEW_IN_3 & settings.keys() - parameters(ConformerEncoder).keys():
        pytest.skip(f"this NeMo's ConformerEncoder has no {', '.join(sorted(missing))}")
    return settings
