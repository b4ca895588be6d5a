"""The streaming state of new streams, before the first chunk."""

from __future__ import annotations

import torch

from .margins import STREAMED
from .state import EncoderState, LayerState, ReductionState
from .steps import Steps, check
from .streamable import Streamable


def initial_state(encoder: Streamable, batch: int) -> EncoderState:
    """Return the streaming state of ``batch`` new streams, in which no remembered frame is valid.

    Raises:
        ValueError: The encoder cannot stream with its settings, or a chunk depends on frames after the chunk.
    """
    check(encoder)
    subsampling = encoder.pre_encode
    if getattr(subsampling, "margins", STREAMED) != STREAMED:
        raise ValueError(
            "the convolutional subsampling of a stream must see no later frames: build with streaming=True"
        )
    steps = Steps.of(encoder)
    if steps.ahead:
        raise ValueError(
            f"att_context_size={encoder.contexts.default}: the look-ahead grows from layer to layer to {steps.ahead} "
            "frames after the chunk, but init_state supports no frames after the chunk; limit the context to chunks "
            "(att_context_style='chunked_limited', conv_context_size='causal' or conv_context_style='dcc')"
        )
    state = empty_state(encoder, batch, steps.left)
    state.subsampling = subsampling.init_state(batch)
    return state


def empty_state(encoder: Streamable, batch: int, past: int) -> EncoderState:
    """Return a streaming state of zeros with ``past`` encoder frames of left context and an empty subsampling state."""
    weight = encoder.layers[0].conv.depthwise_conv.weight  # not of a linear layer, which quantization can replace
    zeros, d, left = weight.new_zeros, encoder.d_model, encoder.variant.reduction_left
    return EncoderState(
        subsampling=[],
        reductions=[ReductionState(zeros(batch, d, left)) for _ in encoder.span.all_branches()],
        layers=[
            LayerState(
                zeros(batch, past >> encoder.span.depth(i), layer.self_attn.remembered * d),
                zeros(batch, layer.conv.depthwise_conv.in_channels, layer.conv.left),
            )
            for i, layer in enumerate(encoder.layers)
        ],
        cached=torch.zeros(batch, dtype=torch.long, device=weight.device),
        past=past,
    )
