"""The checks whether code runs normally, is recorded as a graph, or runs inside a transform of ``torch.func``.

A recorded graph must be correct for inputs of other sizes too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.autograd import forward_ad

_recording = ContextVar("recording", default=False)


def in_graph() -> bool:
    """Return True while ``torch.compile``, ``torch.export``, ``torch.jit.trace`` or an ONNX export records a graph.

    The result is also True inside a transform (``in_transform``), because transforms have two limits of recorded
    graphs. Transforms cannot read values, and transforms do not know the backward passes of this package.
    """
    return torch.compiler.is_compiling() or torch._C._is_tracing() or _recording.get() or in_transform()


def in_trace() -> bool:
    """Return True while ``torch.jit.trace`` records a graph, also for an ONNX export.

    A Python check of a size then causes a warning.
    """
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def in_transform() -> bool:
    """Return True inside a transform of ``torch.func``, such as ``grad`` and ``vmap``, or in forward-mode autograd."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


@contextmanager
def recording_graph() -> Iterator[None]:
    """Make ``in_graph()`` True inside the context.

    An exporter calls a model once before it records the graph, and compares the outputs. The call and the recorded
    graph must use the same implementations.
    """
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)
