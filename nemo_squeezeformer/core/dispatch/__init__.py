"""The dispatch registry, which chooses the implementation that computes an equation of the network."""

from .graphs import in_graph, in_trace, in_transform, recording_graph
from .plain_modules import PLAIN, is_plain, plain_module
from .registry import Implementation, dispatched, implementations, implements, only_equations

__all__ = [
    "Implementation",
    "PLAIN",
    "dispatched",
    "implementations",
    "implements",
    "in_graph",
    "in_trace",
    "in_transform",
    "is_plain",
    "only_equations",
    "plain_module",
    "recording_graph",
]
