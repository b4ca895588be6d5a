"""The functions that call a layer of the encoder, with or without gradient checkpointing and ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .dispatch import in_graph, in_transform
from .frames.masks import Frames
from .frames.state import LayerState

Call = Callable[[nn.Module, Tensor, Frames, Tensor | None, LayerState | None], Tensor]

BACKEND = "inductor"  # backend of torch.compile


def layer_call(gradient_checkpointing: bool, compile: bool) -> Call:
    """Return the function that calls a layer and returns the output of the layer.

    The arguments of the function are (layer, x, frames, positions, state).
    """
    if compile:
        return compiled_and_checkpointed if gradient_checkpointing else compiled
    return checkpointed if gradient_checkpointing else directly


def directly(layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None) -> Tensor:
    return layer(x, frames, positions, state)


def checkpointed(
    layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
) -> Tensor:
    """Call ``layer`` with gradient checkpointing.

    In training, only the inputs of the layer are stored. The backward pass calls the layer again with the same dropout.
    With a ``state``, the layer is called directly, because the layer has changed the state before the backward pass.
    Transforms of ``torch.func`` do not support checkpointing, so they also call the layer directly.
    """
    if state is not None or in_transform() or not (layer.training and torch.is_grad_enabled()):
        return layer(x, frames, positions, state)
    if torch.compiler.is_compiling():  # a compiled graph updates the running statistics only once
        return checkpoint(layer, x, frames, positions, state, use_reentrant=False)
    contexts = partial(_contexts, layer)
    return checkpoint(layer, x, frames, positions, state, use_reentrant=False, context_fn=contexts)


def compiled(layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None) -> Tensor:
    """Call ``layer`` through ``torch.compile``.

    Each layer is compiled separately, with dynamic sizes, so that all layers of the same structure share a graph for
    any length. In a graph of the whole encoder, every size is an expression of the feature length, and PyTorch needs
    minutes to simplify these expressions. Exporters and an outer ``torch.compile`` record the layer, not a compiled
    layer.
    """
    return _compiled(directly, layer, x, frames, positions, state)


def compiled_and_checkpointed(
    layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
) -> Tensor:
    return _compiled(checkpointed, layer, x, frames, positions, state)


def _compiled(
    call: Call, layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
) -> Tensor:
    if in_graph():
        return call(layer, x, frames, positions, state)
    # PyTorch would compile another graph for every new combination of strides.
    mask = None if frames.blocked is None else frames.blocked.contiguous()
    frames = replace(frames, padding=frames.padding.contiguous(), mask=mask)
    if state is not None:
        state.attention, state.convolution = state.attention.contiguous(), state.convolution.contiguous()
    return _compile(call, BACKEND)(layer, x.contiguous(), frames, positions, state)


@cache
def _compile(call: Call, backend: str) -> Call:
    return torch.compile(call, dynamic=True, backend=backend)


def _contexts(layer: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _StatisticsAsTheyAre(layer)


class _StatisticsAsTheyAre(AbstractContextManager[None]):
    """Freeze the running statistics: batch norms counted this batch in the forward pass and must not count it again.

    A second derivative calls the layer several times again, so the context can be entered several times.
    """

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def __enter__(self) -> None:
        norms = [module for module in self.layer.modules() if isinstance(module, _BatchNorm)]
        self.found = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *raised: object) -> None:
        for norm, momentum, batches in self.found:
            norm.momentum, norm.num_batches_tracked = momentum, batches


plain = directly  # older pickled encoders refer to this name
