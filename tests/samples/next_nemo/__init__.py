"""What the next release of NeMo has, as far as its public development files show it: arguments, and a recipe.

The names and the defaults are from ``nemo/collections/asr/modules/conformer_encoder.py`` of
https://github.com/NVIDIA-NeMo/Speech, commit 187ebe3. The version of these files is 3.0.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

VERSION = "3.0.1"
REQUIRED = ("feat_in", "n_layers", "d_model")
# The arguments of ConformerEncoder that have a default.
DEFAULTS: dict[str, Any] = {
    "feat_out": -1,
    "causal_downsampling": False,
    "subsampling": "striding",
    "subsampling_factor": 4,
    "subsampling_conv_chunking_factor": 1,
    "subsampling_conv_channels": -1,
    "reduction": None,
    "reduction_position": None,
    "reduction_factor": 1,
    "ff_expansion_factor": 4,
    "self_attention_model": "rel_pos",
    "n_heads": 4,
    "att_context_size": None,
    "att_context_probs": None,
    "att_chunk_context_size": None,
    "att_context_style": "regular",
    "xscaling": True,
    "untie_biases": True,
    "pos_emb_max_len": 5000,
    "conv_kernel_size": 31,
    "conv_norm_type": "batch_norm",
    "conv_context_size": None,
    "conv_context_style": "regular",
    "use_bias": True,
    "dropout": 0.1,
    "dropout_pre_encoder": 0.1,
    "dropout_emb": 0.1,
    "dropout_att": 0.0,
    "stochastic_depth_drop_prob": 0.0,
    "stochastic_depth_mode": "linear",
    "stochastic_depth_start_layer": 1,
    "global_tokens": 0,
    "global_tokens_spacing": 1,
    "global_attn_separate": False,
    "use_pytorch_sdpa": False,
    "use_pytorch_sdpa_backends": None,
    "sync_max_audio_length": True,
    "rope_base": 10000.0,
    "rotary_fraction": 1.0,
    "use_triton": None,
}
NEW = ("rope_base", "rotary_fraction", "use_triton")  # the arguments that NeMo 3.0.0 does not have
RECIPE = (
    Path(__file__).parent / "fastconformer_ctc_bpe.yaml"
)  # with the settings of NeMo's recipe, and rotary positions
