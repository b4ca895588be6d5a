"""The small encoders that are trained in comparisons: ours and NeMo's, with nearly equal numbers of parameters."""

from __future__ import annotations

from typing import Any

SQUEEZEFORMER = {
    "_target_": "nemo_squeezeformer.SqueezeformerEncoder",
    "subsampling": "dw_striding",
    "time_recovery_idx": None,
    "adaptive_scale": True,
}
CONFORMER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "dropout_pre_encoder": 0.0,
}
SHARED = {
    "feat_in": 80,
    "n_layers": 6,
    "n_heads": 2,
    "subsampling_conv_channels": 32,
    "dropout": 0.0,  # a thousand steps do not overfit, and dropout would take a third of the time on a CPU
    "dropout_att": 0.0,
    "dropout_emb": 0.0,
}
# The widths are chosen for the smallest difference in parameters.
SMALL_ENCODERS: dict[str, dict[str, Any]] = {
    "Squeezeformer": SHARED
    | SQUEEZEFORMER
    | {"d_model": 64, "time_reduce_idx": 2, "subsampling_factor": 4, "conv_kernel_size": 31},
    "Conformer": SHARED
    | CONFORMER
    | {"d_model": 66, "subsampling": "striding", "subsampling_factor": 4, "conv_kernel_size": 31},
    "Squeezeformer 8x": SHARED
    | SQUEEZEFORMER
    | {"d_model": 66, "time_reduce_idx": 2, "subsampling_factor": 8, "conv_kernel_size": 9},
    "FastConformer": SHARED
    | CONFORMER
    | {"d_model": 68, "subsampling": "dw_striding", "subsampling_factor": 8, "conv_kernel_size": 9},
}
