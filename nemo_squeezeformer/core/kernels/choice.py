"""Which exact form of attention computes it: by name, or by what is at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.kernel import KERNELS, Operands, PlainKernel
from ..dispatch import in_graph
from ..frames.masks import Frames
from .query_blocks import QueryBlocks
from .recomputed_attention import RecomputedAttention
from .sdpa import SDPA
from .window_blocks import WindowsInTurn
from .windows import AllWindows


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
        elif torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in operands):
            kernel = self.gradients if operands.v.device.type == "cpu" else self.elsewhere
        else:
            kernel = self.inference
        return kernel(operands, frames, dropout)


AUTO = ByUse(QueryBlocks(), gradients=RecomputedAttention(), graphs=PlainKernel(), elsewhere=PlainKernel())
BLOCKS = ByUse(QueryBlocks(), gradients=RecomputedAttention(), graphs=PlainKernel())
WINDOWS = ByUse(inference=WindowsInTurn(), gradients=AllWindows(), graphs=AllWindows())

KERNELS["auto"] = lambda backends: AUTO
KERNELS["blocks"] = lambda backends: BLOCKS
KERNELS["sdpa"] = SDPA
KERNELS["windows"] = lambda backends: WINDOWS
