"""Changes of an encoder before an exporter records a graph, and changes of the recorded graph for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nemo_squeezeformer.core.attention.local_attention import LocalAttention
from nemo_squeezeformer.core.attention.multi_head import RelPositionAttention
from nemo_squeezeformer.core.convolution import ConvolutionModule
from nemo_squeezeformer.core.dispatch import is_plain
from nemo_squeezeformer.core.encoder import SqueezeformerEncoder
from nemo_squeezeformer.deployment.onnx.graph_convolution import GraphConvolution
from nemo_squeezeformer.deployment.onnx.graph_kernel import GraphKernel
from nemo_squeezeformer.transcription.models import has_enabled_adapters


def for_graphs(encoder: nn.Module, streaming: bool) -> None:
    """Optimize ``encoder`` in place before an exporter records the encoder as a graph.

    For whole utterances, the function also replaces attention and convolutions by ``GraphKernel`` and
    ``GraphConvolution``. For a stream, ``GraphKernel`` and ``GraphConvolution`` are not faster, because the windows of
    a stream are too short. Attention without position scores always gets ``GraphKernel``, because its own kernel is a
    function of PyTorch that exporters know only from opset 14 on. Encoders of other classes, and encoders with enabled
    adapters, do not change.
    """
    if not isinstance(encoder, SqueezeformerEncoder) or has_enabled_adapters(encoder):
        return
    encoder.optimize_for_inference()
    for layer in encoder.layers:
        attention, conv = layer.self_attn, layer.conv
        if not isinstance(attention, RelPositionAttention) or not (streaming or isinstance(attention, LocalAttention)):
            attention.kernel = GraphKernel()
        if not streaming and type(conv) is ConvolutionModule and is_depthwise(conv.depthwise_conv):
            layer.conv.depthwise_conv = GraphConvolution(conv.depthwise_conv)


def is_depthwise(conv: nn.Module) -> bool:
    """Return True if ``conv`` is a plain convolution over time."""
    return type(conv) is nn.Conv1d and is_plain(conv)


def unfuse_norms(path: Path) -> None:
    """Change the graph at ``path`` so that ONNX Runtime does not fuse additions with the layer norms after them.

    ONNX Runtime fuses an ``Add`` and the layer norm after the ``Add`` into one kernel. On a CPU, this kernel takes six
    times as long as two separate kernels. ONNX Runtime does not fuse a ``Sum``.
    """
    import onnx

    model = onnx.load(str(path))
    normed = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] in normed:
            node.op_type = "Sum"
    onnx.save(model, str(path))
