"""The conversion of a graph to half precision."""

from __future__ import annotations

from pathlib import Path


def to_float16(path: Path) -> None:
    """Convert the weights and the computation of the graph at ``path`` to float16.

    The inputs and outputs of the graph stay in float32. The file then has half of its size.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
    onnx.save(model, str(path))
