"""The three encoders of the comparison: Conformer, and Squeezeformer with and without its temporal U-Net."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.small_encoders import CONFORMER, SHARED, SQUEEZEFORMER

CONFORMER_NAME, FLAT, UNET = "Conformer", "Squeezeformer without U-Net", "Squeezeformer"
# All have the same depth and width. The U-Net starts and ends at the same layers as in the published sizes.
ENCODERS: dict[str, dict[str, Any]] = {
    CONFORMER_NAME: CONFORMER | {"d_model": 64, "subsampling": "striding"},
    FLAT: SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": None},
    UNET: SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": 3, "time_recovery_idx": 7},
}
ALIKE = SHARED | {"n_layers": 8, "subsampling_factor": 4, "conv_kernel_size": 31}
