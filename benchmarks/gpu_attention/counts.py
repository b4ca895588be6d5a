"""The operations, the bytes moved and the bytes stored by the forms of relative attention in a training step.

The tensors are on the device ``meta``, which has shapes and dtypes but no values. Nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_attention.forms import EfficientKernel, PlainOnGPU
from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels import recomputed_attention, recomputed_batch
from nemo_squeezeformer.core.kernels.recomputed_attention import Blocks
from nemo_squeezeformer.core.kernels.recomputed_batch import RecomputedBatch


class Size(NamedTuple):
    """The size of a batch: utterances, frames, and the width of a head. There are 4 heads."""

    b: int
    t: int
    d: int


class Count(NamedTuple):
    """The counts of a layer for the forward pass and the backward pass."""

    operations: float
    moved: float  # bytes of all operands and results of all operations
    stored: float  # bytes stored for the backward pass, without the operands of attention


class UtterancesInTurn(PlainKernel):
    """The kernel for training on a CPU, without the lengths that it reads: all utterances have all frames."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        b, _, t, _ = operands.content.shape
        return recomputed_attention._attention(*operands[:5], Blocks([t] * b, t, Context()), dropout.p)


FORMS: dict[str, PlainKernel] = {
    "plain": PlainOnGPU(),
    "recomputed, whole batch": RecomputedBatch(),
    "recomputed, utterances in turn": UtterancesInTurn(),
    "fused kernel, low precision": EfficientKernel(in_float32=False),
    "`sdpa`: fused kernel, float32": EfficientKernel(),
}
SIZES = [Size(b, t, d) for d in (49, 81) for b, t in ((32, 125), (32, 375), (8, 1500))]
RATE = 0.1  # dropout rate of the attention weights in the recipes


class Traffic(TorchDispatchMode):
    """The mode that sums the bytes of the operands and the results of all operations, except views."""

    NOTHING = ("empty", "_unsafe_view", "detach", "alias")  # parts of the names of operations that move no bytes
    WRITES = ("copy_", "zero_", "fill_", "bernoulli_")  # operations that do not read the tensor that they change

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        name = func.__name__
        if not func.is_view and not any(part in name for part in self.NOTHING):
            read = args[1:] if name.startswith(self.WRITES) else args
            given = [x for x in tree_leaves((read, kwargs)) if isinstance(x, Tensor)]
            self.bytes += sum(map(size, given)) + sum(size(x) for x in tree_leaves(results) if isinstance(x, Tensor))
        return results


def size(x: Tensor) -> int:
    """Return the bytes of ``x``. An expanded tensor counts once."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


class OneByteDropout(nn.Dropout):
    """Dropout that stores a byte for each element, as on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, True)[0]


def count(form: str, given: Size) -> Count:
    """Count the attention of a layer in bfloat16."""
    b, t, d = given

    def leaf(utterances: int, frames: int) -> Tensor:
        return torch.empty(utterances, frames, 4, d, dtype=torch.bfloat16, device="meta").transpose(1, 2)

    content, k, v, position = (leaf(b, t).requires_grad_() for _ in range(4))
    operands = Operands(content, k, v, position, leaf(1, 2 * t - 1).requires_grad_())
    frames = Frames.of(torch.empty(b, dtype=torch.long, device="meta"), t, Context())
    stored: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        stored[storage._cdata] = storage.nbytes()
        return x

    with _generators_of_the_cpu(), FlopCounterMode(display=False) as flops, Traffic() as traffic:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            attended = FORMS[form](operands, frames, OneByteDropout(RATE))
        attended.backward(torch.empty_like(attended))
    of_operands = {x.untyped_storage()._cdata for x in operands if isinstance(x, Tensor)}
    kept = sum(nbytes for storage, nbytes in stored.items() if storage not in of_operands)
    return Count(flops.get_total_flops(), traffic.bytes, kept)


def flex(given: Size) -> Count:
    """Return the counts of FlexAttention with the position scores as a captured tensor, by formula.

    The position scores (B, H, T, 2T - 1) are a product before the kernel. The kernel has 2 products in the forward pass
    and 5 in the backward pass. It reads a position score for each score twice, and adds each gradient to a buffer of
    zeros. Dropout is left out, because FlexAttention has no dropout.
    """
    b, t, d = given
    scores, by_position, operand = 4 * b * t * t, 4 * b * t * (2 * t - 1), 4 * b * t * d
    operations = 2 * d * (7 * scores + 3 * by_position)
    small = 2 * (20 * operand)  # queries, keys, values, outputs and their gradients
    moved = 2 * (by_position + 2 * scores + by_position + 2 * scores + 2 * by_position) + small
    return Count(operations, moved, 2 * by_position + 2 * operand)


@contextmanager
def _generators_of_the_cpu() -> Iterator[None]:
    """Let the kernels draw masks on the device ``meta``, which has no random numbers."""
    modules: tuple[Any, ...] = (recomputed_attention, recomputed_batch)
    before = [module._generator for module in modules]
    for module in modules:
        module._generator = lambda x, seed, *rate: torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        for module, found in zip(modules, before):
            module._generator = found
