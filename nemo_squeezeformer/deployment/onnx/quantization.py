"""The quantization of the encoder's linear layers to 8-bit integers, in the graph of NeMo's export.

The weights have a scale for each output channel. Products of queries, keys, values and positions stay in float32.
Convolutions also stay in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.calibration import CalibrationInputs
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import extras

OPERATORS = ["MatMul", "Gemm"]  # matrix products; products without constant weights are left out


def quantize(path: Path) -> None:
    """Quantize the linear layers in the graph at ``path``. ONNX Runtime computes the scales of activations in each run.

    This quantization is dynamic. It needs no data.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The weights are signed, because products with unsigned weights take twice as long on a processor with VNNI.
    quantize_dynamic(path, path, OPERATORS, per_channel=True, weight_type=QuantType.QInt8)


def calibrated(path: Path, model: Any, manifest: Path, streaming: bool) -> None:
    """Quantize the linear layers in the graph at ``path`` with fixed scales of the activations.

    The scales cover all values of the activations for the recordings of ``manifest``. Larger values are clipped.

    Args:
        path: Path of the graph. The graph is the encoder of ``model`` as NeMo exports it, without changed inputs.
        model: NeMo model, which computes the features.
        manifest: Path of a NeMo manifest. See ``calibration.recordings`` for the recordings that are used.
        streaming: If True, the graph takes the steps of a stream and caches.

    Raises:
        UserError: The manifest or a recording cannot be used.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        path,
        path,
        CalibrationInputs(path, model, manifest, streaming),
        QuantFormat.QDQ,
        OPERATORS,
        per_channel=True,
        # Unsigned activations: on x86 processors, products of two signed matrices take more than twice as long.
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "MatMulConstBOnly": True,
            # Only the inputs of matrix products are quantized: residual additions and layer norms stay in float32.
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": OPERATORS,
        },
    )


def check_quantization() -> None:
    """Raise UserError if a package that quantization needs is missing."""
    try:
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise UserError(f"int8 and float16 need ONNX Runtime ({error}); run: {extras.install('onnx')}") from error
