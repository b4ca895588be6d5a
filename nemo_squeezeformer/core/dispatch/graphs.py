"""Whether the code at hand is being run, or recorded as a graph that must hold for other inputs too."""

from __future__ import annotations

import torch


def in_graph() -> bool:
    """True while ``torch.compile``, ``torch.export``, ``torch.jit.trace`` or an ONNX export records."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()
