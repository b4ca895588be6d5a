"""Calls with fixed inputs and outputs, which a CUDA graph can record and replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nemo_squeezeformer.core import SqueezeformerEncoder


def tensors(state: Any) -> list[Tensor]:
    """Return all tensors of a streaming state, in the order of the fields."""
    if isinstance(state, Tensor):
        return [state]
    if is_dataclass(state):
        state = [getattr(state, field.name) for field in fields(state)]
    return [tensor for part in state for tensor in tensors(part)] if isinstance(state, list) else []


def with_same_tensors(state: Any) -> Any:
    """Return a copy of a streaming state that contains the same tensors. A call of the encoder replaces the tensors."""
    if isinstance(state, list):
        return [with_same_tensors(part) for part in state]
    if not is_dataclass(state) or isinstance(state, type):
        return state
    return replace(state, **{field.name: with_same_tensors(getattr(state, field.name)) for field in fields(state)})


class Repeated:
    """A call of an encoder with the inputs ``x`` and ``lengths`` and the outputs ``y`` and ``valid``.

    The memory of these tensors and of the streaming state ``state`` does not move. ``again`` repeats the call: on CUDA,
    it replays a recorded graph. To start new streams, set the tensors of ``state`` to zero.

    Args:
        encoder: Encoder in evaluation.
        x: Features (B, F, T).
        lengths: Number of valid feature frames (B,).
        streams: True if the features are a chunk of streams.
        precision: Precision of autocast. None means no autocast.
    """

    def __init__(
        self,
        encoder: SqueezeformerEncoder,
        x: Tensor,
        lengths: Tensor,
        streams: bool = False,
        precision: torch.dtype | None = None,
    ):
        self.encoder, self.x, self.lengths, self.precision = encoder, x.clone(), lengths.clone(), precision
        self.state = encoder.init_state(x.size(0)) if streams else None
        self.y, self.valid = self._encoded()
        self.again = self._recorded() if x.device.type == "cuda" else self._call
        for tensor in tensors(self.state):
            tensor.zero_()

    @torch.no_grad()
    def _encoded(self) -> tuple[Tensor, Tensor]:
        new = with_same_tensors(self.state)
        # A cache of cast weights would be filled while the graph is recorded, and emptied before the graph is replayed.
        with torch.autocast(
            self.x.device.type,
            self.precision or torch.bfloat16,
            enabled=self.precision is not None,
            cache_enabled=False,
        ):
            y, valid = self.encoder(self.x, self.lengths, new)
        for held, tensor in zip(tensors(self.state), tensors(new)):
            held.copy_(tensor)
        return y, valid

    def _call(self) -> None:
        for held, tensor in zip((self.y, self.valid), self._encoded()):
            held.copy_(tensor)

    def _recorded(self) -> Callable[[], None]:
        """Return the replay of a CUDA graph. PyTorch's notes on CUDA graphs ask for calls in another stream first."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._call()
        return graph.replay
