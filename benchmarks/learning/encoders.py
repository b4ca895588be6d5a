"""The encoders that are compared: ours and NeMo's, with nearly equal numbers of parameters or of operations."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.training import CONFORMER, SHARED, SQUEEZEFORMER

# All encoders have six layers and two attention heads. The widths give the smallest difference in parameters or in
# operations.
ENCODERS: dict[str, dict[str, Any]] = {
    "Squeezeformer": SQUEEZEFORMER
    | {"d_model": 64, "time_reduce_idx": 2, "subsampling_factor": 4, "conv_kernel_size": 31},
    "Conformer, equal parameters": CONFORMER
    | {"d_model": 66, "subsampling": "striding", "subsampling_factor": 4, "conv_kernel_size": 31},
    "Conformer, equal operations": CONFORMER
    | {"d_model": 44, "subsampling": "striding", "subsampling_factor": 4, "conv_kernel_size": 31},
    "Squeezeformer 8x": SQUEEZEFORMER
    | {"d_model": 66, "time_reduce_idx": 2, "subsampling_factor": 8, "conv_kernel_size": 9},
    "FastConformer": CONFORMER
    | {"d_model": 68, "subsampling": "dw_striding", "subsampling_factor": 8, "conv_kernel_size": 9},
}


def encoder_config(name: str) -> dict[str, Any]:
    return SHARED | ENCODERS[name]
