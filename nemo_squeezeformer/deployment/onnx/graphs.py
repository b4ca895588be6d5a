"""A model made ready to be recorded as a graph, and the recorded graph as ONNX Runtime is fast at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from nemo_squeezeformer.core.attention.local_attention import LocalAttention
from nemo_squeezeformer.core.attention.multi_head import RelPositionAttention
from nemo_squeezeformer.core.convolution import ConvolutionModule
from nemo_squeezeformer.core.dispatch import is_plain
from nemo_squeezeformer.core.encoder import SqueezeformerEncoder
from nemo_squeezeformer.deployment.onnx.graph_convolution import GraphConvolution
from nemo_squeezeformer.deployment.onnx.graph_kernel import GraphKernel
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.models import has_enabled_adapters


def for_graphs(encoder: Any, streaming: bool) -> None:
    """Optimises ``encoder``; for whole utterances its attention and convolutions become those of graphs.

    The windows of a stream are too short for these to gain anything. Other encoders, and one with adapters on, stay.
    """
    if not isinstance(encoder, SqueezeformerEncoder) or has_enabled_adapters(encoder):
        return
    encoder.optimize_for_inference()
    if streaming:
        return
    layers: Any = encoder.layers
    for layer in layers:
        attention, conv = layer.self_attn, layer.conv
        if isinstance(attention, RelPositionAttention) and not isinstance(attention, LocalAttention):
            attention.kernel = GraphKernel()
        if type(conv) is ConvolutionModule and is_depthwise(conv.depthwise_conv):
            layer.conv.depthwise_conv = GraphConvolution(conv.depthwise_conv)


def is_depthwise(conv: nn.Module) -> bool:
    """Whether ``conv`` is a convolution over time and no more than its weights."""
    return type(conv) is nn.Conv1d and is_plain(conv)


def unfuse_norms(path: Path) -> None:
    """Have the sums before layer norms stay outside of them, in the graph at ``path``.

    ONNX Runtime merges an ``Add`` with the norm after it into one kernel, which on a CPU takes six times as long as the
    two. A ``Sum`` it leaves alone.
    """
    import onnx

    model = onnx.load(str(path))
    normed = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] in normed:
            node.op_type = "Sum"
    onnx.save(model, str(path))


def quantize(path: Path) -> None:
    """Have the matrix products with weights, in the graph at ``path``, be of integers of 8 bits.

    Weights have a scale for each of their outputs. What they are multiplied with gets one in each run, so no data is
    needed. Products of queries, keys, values and positions stay in float32, as do convolutions.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Signed: of unsigned weights the products take twice as long where the processor has VNNI.
    quantize_dynamic(path, path, ["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8)


def check_quantization() -> None:
    """Raises UserError where ``quantize`` cannot work for want of a package."""
    try:
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise UserError(f"int8 needs ONNX Runtime ({error}); run `pip install onnxruntime`") from error
