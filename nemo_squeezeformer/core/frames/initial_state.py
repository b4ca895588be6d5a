"""The state of streams before their first chunk."""

from __future__ import annotations

from typing import Any

import torch

from .margins import STREAMED
from .state import EncoderState, LayerState, ReductionState
from .steps import Steps, check


def initial_state(encoder: Any, batch: int) -> EncoderState:
    """What ``encoder`` remembers of ``batch`` streams before they begin: zeros, and nothing to attend to.

    Raises:
        ValueError: if its settings cannot stream, or need frames beyond the chunk.
    """
    check(encoder)
    subsampling = encoder.pre_encode
    if getattr(subsampling, "margins", STREAMED) != STREAMED:
        raise ValueError("a stream's convolutional subsampling must see nothing ahead: build with streaming=True")
    steps = Steps.of(encoder)
    if steps.ahead:
        raise ValueError(
            f"att_context_size={encoder.contexts.default}: its look-ahead grows from layer to layer to {steps.ahead} "
            "frames after the chunk, which init_state has no place for; limit it by chunks (att_context_style="
            "'chunked_limited', conv_context_size='causal' or conv_context_style='dcc')"
        )
    state = empty_state(encoder, batch, steps.left)
    state.subsampling = subsampling.init_state(batch)
    return state


def empty_state(encoder: Any, batch: int, past: int) -> EncoderState:
    """Zeros in the place of ``past`` frames, at the full rate, and of what convolutions see before the first."""
    weight = encoder.layers[0].conv.depthwise_conv.weight  # not a linear layer's, which quantisation may take away
    zeros, d, left = weight.new_zeros, encoder.d_model, encoder.variant.reduction_left
    return EncoderState(
        subsampling=[],
        reductions=[ReductionState(zeros(batch, d, left)) for _ in encoder.span.all_branches()],
        layers=[
            LayerState(
                zeros(batch, past >> encoder.span.depth(i), d),
                zeros(batch, layer.conv.depthwise_conv.in_channels, layer.conv.left),
            )
            for i, layer in enumerate(encoder.layers)
        ],
        cached=torch.zeros(batch, dtype=torch.long, device=weight.device),
        past=past,
    )
