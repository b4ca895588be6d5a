"""The check whether code runs normally or is recorded as a graph, which must be correct for other inputs too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_recording = ContextVar("recording", default=False)


def in_graph() -> bool:
    """Return True while ``torch.compile``, ``torch.export``, ``torch.jit.trace`` or an ONNX export records a graph."""
    return torch.compiler.is_compiling() or torch._C._is_tracing() or _recording.get()


@contextmanager
def recording_graph() -> Iterator[None]:
    """Make ``in_graph()`` True inside the context.

    An exporter runs a model once before it records the graph, and compares the outputs. Both runs must take the same
    implementations.
    """
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)
