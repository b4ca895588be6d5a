"""The encoders that are compared. They differ only in the positions of attention."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.small_encoders import SMALL_ENCODERS

POSITIONS = {"relative": {"self_attention_model": "rel_pos"}, "rotary": {"self_attention_model": "rope"}}


def small_config(positions: str) -> dict[str, Any]:
    """Return the configuration of the small encoder that is trained."""
    return SMALL_ENCODERS["Squeezeformer"] | POSITIONS[positions]
