"""What an ONNX graph computes inside: the shape of every value, static or met in a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime


def static_shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Names and known dimensions of initializers, constants, and of all that ONNX's shape inference finds."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True).graph
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.name, list(attribute.t.dims)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        yield value.name, [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]


def shapes_met(path: Path, inputs: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shapes of what every node gives in a run with ``inputs``, none fused or folded away."""
    model = onnx.load(str(path))
    outputs = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, value in zip([output.name for output in session.get_outputs()], session.run(None, inputs)):
        yield name, np.shape(value)
