"""The renaming of values inside an ONNX graph."""

from __future__ import annotations

from typing import Any


def rename(graph: Any, names: dict[str, str]) -> None:
    """Rename values inside ``graph`` and its subgraphs. The inputs and outputs of the graph keep their names."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g, names)
