"""The state of streams before their first chunk."""

from __future__ import annotations

from typing import Any

from .streaming import EncoderState, LayerState, ReductionState
from .subsampling import StridingSubsampling
from .temporal_unet import TimeReduction


def initial_state(encoder: Any, batch: int) -> EncoderState:
    """What ``encoder`` remembers of ``batch`` streams before they begin: zeros, and nothing to attend to.

    Raises:
        ValueError: if its settings cannot stream.
    """
    if not encoder.streaming or not isinstance(encoder.pre_encode, StridingSubsampling) or encoder.attention.local:
        raise ValueError(
            "only an encoder built with streaming=True, convolutional subsampling and self_attention_model='rel_pos' "
            "or 'abs_pos' has a state"
        )
    context = encoder.contexts.of(training=False)
    if min(context.left, context.right) < 0:
        raise ValueError(
            f"att_context_size={encoder.contexts.default}: a stream needs a limit to the left and to the right"
        )
    zeros, d = encoder.layers[0].self_attn.linear_q.weight.new_zeros, encoder.d_model
    convolutions = [layer.conv for layer in encoder.layers]
    return EncoderState(
        subsampling=encoder.pre_encode.init_state(batch),
        reductions=[ReductionState(zeros(batch, d, TimeReduction.LEFT)) for _ in encoder.span.all_branches()],
        layers=[
            LayerState(zeros(batch, 0, d), zeros(batch, conv.depthwise_conv.in_channels, conv.left))
            for conv in convolutions
        ],
    )
