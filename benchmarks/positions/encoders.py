"""The encoders that are compared. They differ only in the positions of attention."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.training import SHARED, SQUEEZEFORMER

POSITIONS = {"relative": {"self_attention_model": "rel_pos"}, "rotary": {"self_attention_model": "rope"}}
# The Squeezeformer of the page `side_by_side`, with two heads of 32 values.
SMALL = SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": 2, "subsampling_factor": 4, "conv_kernel_size": 31}


def small_config(positions: str) -> dict[str, Any]:
    """Return the configuration of the small encoder that is trained."""
    return SHARED | SMALL | POSITIONS[positions]
