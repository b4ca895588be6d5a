"""The dispatch registry: it chooses the implementation that computes an equation of the network."""

from .graphs import in_graph, recording_graph
from .plain_modules import PLAIN, is_plain, plain_module
from .registry import Implementation, dispatched, implementations, implements, only_equations

__all__ = [
    "Implementation",
    "PLAIN",
    "dispatched",
    "implementations",
    "implements",
    "in_graph",
    "is_plain",
    "only_equations",
    "plain_module",
    "recording_graph",
]
