"""The three encoders that are trained alike: Conformer, and Squeezeformer with and without its U-Net."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.training import CONFORMER, SHARED, SQUEEZEFORMER

CONFORMER_NAME, FLAT, UNET = "Conformer", "Squeezeformer without U-Net", "Squeezeformer"
# Of one depth and width; the U-Net where the published sizes have it.
ENCODERS: dict[str, dict[str, Any]] = {
    CONFORMER_NAME: CONFORMER | {"d_model": 64, "subsampling": "striding"},
    FLAT: SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": None},
    UNET: SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": 3, "time_recovery_idx": 7},
}
ALIKE = SHARED | {"n_layers": 8, "subsampling_factor": 4, "conv_kernel_size": 31}
