"""What the processor of this machine can compute."""

from __future__ import annotations

from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")


def largest_error_of_int8(usual: float) -> float:
    """Return the largest relative error of int8 that is allowed on this machine.

    On x86 processors without the instructions VNNI, ONNX Runtime adds two products in 16 bits, and the sum saturates.
    On other processors, the result is ``usual``.
    """
    text = PROCESSORS.read_text(encoding="utf-8") if PROCESSORS.exists() else ""
    return 0.3 if "avx2" in text and "vnni" not in text else usual
