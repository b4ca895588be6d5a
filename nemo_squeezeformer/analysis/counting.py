"""Functions that count the parameters, the operations and the peak memory of an encoder on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nemo_squeezeformer.analysis.parts import Part


def parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def gflops(encoder: nn.Module, features: int, frames: int, parts: Sequence[Part] = ()) -> tuple[float, list[float]]:
    """Return the number of operations for one utterance in inference, in 10^9.

    A multiplication and an addition are two operations. Only matrix products and convolutions count, as in
    ``FlopCounterMode``. The turns of rotary positions do not count: they take three operations for each value of the
    queries and keys, which is less than 0.1 % of the operations for 30 s in every published size.

    Args:
        encoder: an encoder on the meta device.
        features: number of feature channels.
        frames: number of feature frames of the utterance.
        parts: parts of the encoder.

    Returns:
        The operations of the encoder, and a list with the operations of each part in ``parts``.
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        _call(encoder.eval(), 1, features, frames)
    counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    root = type(encoder).__name__
    each = [sum(counts.get(f"{root}.{module}", 0) for module in part.modules) / 1e9 for part in parts]
    return counter.get_total_flops() / 1e9, each


def peak_bytes(encoder: nn.Module, features: int, frames: int, batch: int, training: bool) -> int:
    """Return the peak memory of the tensors in an inference, or in a training step without the optimizer, in bytes.

    The weights and the input are not counted. If ``training`` is True, gradients are counted. The count is for a GPU:
    the encoder does not use the fast implementations for a CPU. Memory that a library uses inside an operation is not
    counted.
    """
    encoder.train(training)
    with torch.set_grad_enabled(training), Alive() as alive:
        encoded = _call(encoder, batch, features, frames)
        if training:
            encoded.float().square().mean().backward()
    encoder.zero_grad(set_to_none=True)
    encoder.eval()
    return alive.most


class Alive(TorchDispatchMode):
    """A counter of the memory of all tensors that operations return.

    ``now`` is the number of bytes in storages that are not freed yet. ``most`` is the largest value of ``now``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and x.layout == torch.strided:  # other layouts have no storage
                self.add(x.untyped_storage())
        return output

    def add(self, storage: Any) -> None:
        """Count a storage until it is freed. A storage that is already counted is not counted again."""
        if storage in self.known:
            return
        self.known.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size: int) -> None:
        """Subtract the ``size`` bytes of a freed storage."""
        self.now -= size


def _call(encoder: nn.Module, batch: int, features: int, frames: int) -> Tensor:
    device = next(encoder.parameters()).device
    lengths = torch.full((batch,), frames, device=device)
    return encoder(audio_signal=torch.empty(batch, features, frames, device=device), length=lengths)[0]
