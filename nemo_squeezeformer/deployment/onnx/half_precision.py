"""The conversion of a graph to half precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def to_float16(path: Path) -> None:
    """Convert the weights and the computation of the graph at ``path`` to float16.

    The inputs and outputs of the graph stay in float32. The angles of positions, and the sines and cosines of these
    angles, are computed in float32, because float16 cannot represent all positions above 2048. The file then has half
    of its size.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(path))
    kept = set(_angles(model.graph))
    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=sorted(kept))
    _remove_casts(model.graph, kept)
    onnx.save(model, str(path))


def _angles(graph: Any) -> Iterator[str]:
    """Yield the names of the nodes from the positions to the sines and cosines."""
    made_by = {output: node for node in graph.node for output in node.output}
    found = [node for node in graph.node if node.op_type in ("Sin", "Cos")]
    while found:
        node = found.pop()
        if node.op_type != "Shape":  # the sizes of float16 values
            yield node.name
            found += [made_by[name] for name in node.input if name in made_by]


def _remove_casts(graph: Any, kept: set[str]) -> None:
    """Connect the nodes ``kept`` with each other.

    The converter casts each value between two of these nodes to float16 and back, and gives the values these names.
    """
    outputs = {output for node in graph.node for output in node.output}
    for node in graph.node:
        for i, name in enumerate(node.input if node.name in kept else ()):
            before = name.replace("_cast_to_fp32", "_cast_to_fp16")
            if before in outputs:
                node.input[i] = before
    used = {name for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.name.endswith("_cast_to_fp32_node")]:
        if node.output[0] not in used:
            graph.node.remove(node)
