"""Which exact form of attention computes it: by name, or by what is at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.kernel import SDPA, Operands, PlainKernel
from ..dispatch.graphs import in_graph
from ..frames.masks import Frames
from .query_blocks import QueryBlocks
from .recomputed import RecomputedAttention


class ByUse(PlainKernel):
    """A kernel each for inference, for gradients, and for graphs, which would have as many blocks as their example.

    ``elsewhere``: for gradients where the device is no CPU.
    """

    def __init__(
        self,
        inference: PlainKernel,
        gradients: PlainKernel,
        graphs: PlainKernel,
        elsewhere: PlainKernel | None = None,
    ):
        self.inference, self.gradients, self.graphs = inference, gradients, graphs
        self.elsewhere = elsewhere or gradients

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d)"""
        if in_graph():
            kernel = self.graphs
        elif torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in operands):
            kernel = self.gradients if operands.v.device.type == "cpu" else self.elsewhere
        else:
            kernel = self.inference
        return kernel(operands, frames, dropout)


def choose_kernel(attention: str, sdpa_backends: tuple[str, ...] | None) -> PlainKernel:
    """The kernel of ``attention``, or of ``use_pytorch_sdpa`` where ``sdpa_backends`` are given.

    Raises:
        ValueError: for a name that there is none of, or both settings at once.
    """
    if sdpa_backends is not None:
        if attention not in ("auto", "sdpa"):
            raise ValueError(f"attention={attention!r} and use_pytorch_sdpa=True: leave one of them out")
        return SDPA(sdpa_backends)
    if attention not in KERNELS:
        raise ValueError(f"attention={attention!r}: expected one of {', '.join(map(repr, KERNELS))}")
    return KERNELS[attention]


KERNELS: dict[str, PlainKernel] = {
    "auto": ByUse(QueryBlocks(), gradients=RecomputedAttention(), graphs=PlainKernel(), elsewhere=PlainKernel()),
    "plain": PlainKernel(),
    "blocks": ByUse(QueryBlocks(), gradients=RecomputedAttention(), graphs=PlainKernel()),
    "sdpa": SDPA(),
}
