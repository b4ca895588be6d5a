"""The encoders that are compared: ours and NeMo's, with nearly equal numbers of parameters or of operations."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.small_encoders import SMALL_ENCODERS

CONFORMER = SMALL_ENCODERS["Conformer"]
SQUEEZEFORMER_8X = SMALL_ENCODERS["Squeezeformer 8x"]
ENCODERS: dict[str, dict[str, Any]] = {
    "Squeezeformer": SMALL_ENCODERS["Squeezeformer"],
    "Conformer, equal parameters": CONFORMER,
    "Conformer, equal operations": CONFORMER | {"d_model": 44},  # the width with the smallest difference in operations
    "Squeezeformer 8x": SQUEEZEFORMER_8X,
    # Without the U-Net, the number of operations is nearly the number of FastConformer.
    "Squeezeformer 8x without U-Net": SQUEEZEFORMER_8X | {"time_reduce_idx": None},
    "FastConformer": SMALL_ENCODERS["FastConformer"],
}
