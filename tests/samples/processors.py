"""What the processor of this machine can compute."""

from __future__ import annotations

from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")


def int8_saturates() -> bool:
    """Return True if ONNX Runtime adds two int8 products in 16 bits, where the sum can saturate.

    ONNX Runtime does this on x86 processors without the instructions VNNI.
    """
    text = PROCESSORS.read_text(encoding="utf-8") if PROCESSORS.exists() else ""
    return "avx2" in text and "vnni" not in text


def largest_error_of_int8(usual: float) -> float:
    """Return the largest relative error of int8 that is allowed on this machine: ``usual``, or more with saturation."""
    return 0.3 if int8_saturates() else usual
