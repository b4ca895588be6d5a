"""How the encoder calls a layer: as it is, checkpointed, compiled, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .dispatch import in_graph
from .frames.masks import Frames
from .frames.state import LayerState

Call = Callable[[nn.Module, Tensor, Frames, Tensor | None, LayerState | None], Tensor]

BACKEND = "inductor"  # of torch.compile


def layer_call(gradient_checkpointing: bool, compile: bool) -> Call:
    """The function to call layers by: ``call(layer, x, frames, positions, state)`` is what the layer gives."""
    if compile:
        return compiled_and_checkpointed if gradient_checkpointing else compiled
    return checkpointed if gradient_checkpointing else directly


def directly(layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None) -> Tensor:
    return layer(x, frames, positions, state)


def checkpointed(
    layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None
) -> Tensor:
    """In training, keeps the inputs of ``layer`` alone, and runs it again on the way back with the same dropout.

    Not with a ``state``, which has moved on by then.
    """
    if state is not None or not (layer.training and torch.is_grad_enabled()):
        return layer(x, frames, positions, state)
    if torch.compiler.is_compiling():  # a graph updates statistics once, however often it computes them
        return checkpoint(layer, x, frames, positions, state, use_reentrant=False)
    contexts = partial(_contexts, layer)
    return checkpoint(layer, x, frames, positions, state, use_reentrant=False, context_fn=contexts)


def compiled(layer: nn.Module, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None) -> Tensor:
    """Compiled one layer at a time: a graph with sizes of its own serves all layers that are alike, at any length.

    A graph of the whole encoder has every size as an expression in the length of the features, which takes PyTorch
    minutes to simplify. Exporters and an outer ``torch.compile`` get the layer as it is.
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
    # Strides that vary would make a graph each.
    mask = None if frames.blocked is None else frames.blocked.contiguous()
    frames = replace(frames, padding=frames.padding.contiguous(), mask=mask)
    if state is not None:
        state.attention, state.convolution = state.attention.contiguous(), state.convolution.contiguous()
    return _compile(call, BACKEND)(layer, x.contiguous(), frames, positions, state)


@cache
def _compile(call: Call, backend: str) -> Call:
    return torch.compile(call, dynamic=True, backend=backend)


def _contexts(layer: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_as_they_are(layer)


@contextmanager
def _statistics_as_they_are(layer: nn.Module) -> Iterator[None]:
    """Batch norms have counted this batch on the way forward, and must not count it again."""
    norms = [
        (norm, norm.momentum, norm.num_batches_tracked) for norm in layer.modules() if isinstance(norm, _BatchNorm)
    ]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in norms:
            norm.momentum, norm.num_batches_tracked = momentum, batches


plain = directly  # its name in encoders that were pickled before
