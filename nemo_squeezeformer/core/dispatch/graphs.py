"""Whether the code at hand is being run, or recorded as a graph that must hold for other inputs too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_recording = ContextVar("recording", default=False)


def in_graph() -> bool:
    """True while ``torch.compile``, ``torch.export``, ``torch.jit.trace`` or an ONNX export records."""
    return torch.compiler.is_compiling() or torch._C._is_tracing() or _recording.get()


@contextmanager
def recording_graph() -> Iterator[None]:
    """Within it ``in_graph()`` is True: an exporter runs a model once before it records it, and compares the two."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)
