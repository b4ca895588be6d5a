"""Counts of an encoder that nobody computes with: parameters, operations, and the most bytes of tensors at once."""

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
    return sum(parameter.numel() for parameter in module.parameters())


def gflops(encoder: Any, features: int, frames: int, parts: Sequence[Part] = ()) -> tuple[float, list[float]]:
    """Operations of one utterance of ``frames`` feature frames in inference, in 10^9, and those of each of ``parts``.

    A multiplication and an addition are two; only products and convolutions count (``FlopCounterMode``).
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        _call(encoder.eval(), 1, features, frames)
    counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    root = type(encoder).__name__
    each = [sum(counts.get(f"{root}.{module}", 0) for module in part.modules) / 1e9 for part in parts]
    return counter.get_total_flops() / 1e9, each


def peak_bytes(encoder: Any, features: int, frames: int, batch: int, training: bool) -> int:
    """The most bytes of tensors alive at once in an inference, or in a training step without its optimizer.

    Above weights and input; with training, gradients are among them. The computation is that of a GPU, where our
    encoder computes what is written; what libraries take for themselves inside an operation is not seen.
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
    """Sums the storages of all tensors that operations give, until each is freed: ``most`` is the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and x.layout == torch.strided:  # others have no storage
                self.add(x.untyped_storage())
        return output

    def add(self, storage: Any) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size: int) -> None:
        self.now -= size


def _call(encoder: Any, batch: int, features: int, frames: int) -> Tensor:
    device = next(encoder.parameters()).device
    lengths = torch.full((batch,), frames, device=device)
    return encoder(audio_signal=torch.empty(batch, features, frames, device=device), length=lengths)[0]
