"""The versions of ONNX's set of operators (opset) for which an export gives a graph that ONNX Runtime runs."""

from __future__ import annotations

from nemo_squeezeformer.errors import UserError

# Below 13, ONNX Runtime refuses some graphs: streams below 12, local attention below 13. PyTorch's exporter ends at 23.
OPSETS = range(13, 24)


def check_opset(opset: int | None) -> None:
    """Raise UserError if an export for this opset gives no graph, or a graph that does not run. None is accepted."""
    if opset is not None and opset not in OPSETS:
        raise UserError(
            f"--opset {opset}: ONNX Runtime runs the exported graphs with opset {OPSETS[0]} to {OPSETS[-1]}; choose a "
            "version in this range, or leave out --opset"
        )
