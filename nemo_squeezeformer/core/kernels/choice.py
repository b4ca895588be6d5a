"""The choice of the attention kernel, by the value of the setting ``attention`` and by the kind of computation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention.kernel import KERNELS, Operands, PlainKernel
from ..dispatch import in_graph
from ..frames.masks import Frames
from .flash_lengths import FlashLengths
from .fused_blocks import FusedBlocks
from .fused_training import FusedTraining
from .query_blocks import QueryBlocks
from .recomputed_attention import RecomputedAttention
from .recomputed_batch import RecomputedBatch
from .sdpa import SDPA
from .window_blocks import WindowsInTurn
from .windows import AllWindows


class ByUse(PlainKernel):
    """A kernel that calls one of several kernels, depending on gradients, on the device and on recorded graphs.

    Args:
        inference: Kernel for inputs without gradients.
        gradients: Kernel for inputs with gradients on a CPU.
        graphs: Kernel for recorded graphs. This kernel must not loop over blocks, because a recorded graph would fix
            the number of blocks of the example input.
        elsewhere: Kernel for inputs with gradients on other devices. None means ``gradients``.
        inference_elsewhere: Kernel for inputs without gradients on other devices. None means ``inference``.
    """

    inference_elsewhere: PlainKernel | None = None  # encoders that were pickled by earlier versions do not have it

    def __init__(
        self,
        inference: PlainKernel,
        gradients: PlainKernel,
        graphs: PlainKernel,
        elsewhere: PlainKernel | None = None,
        inference_elsewhere: PlainKernel | None = None,
    ):
        self.inference, self.gradients, self.graphs = inference, gradients, graphs
        self.elsewhere = elsewhere or gradients
        self.inference_elsewhere = inference_elsewhere

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        on_cpu = operands.v.device.type == "cpu"
        if in_graph():
            kernel = self.graphs
        elif torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in operands):
            kernel = self.gradients if on_cpu else self.elsewhere
        else:
            kernel = self.inference if on_cpu else self.inference_elsewhere or self.inference
        return kernel(operands, frames, dropout)


# On a GPU, ``RecomputedBatch`` moves fewer bytes than ``PlainKernel`` and stores no scores. ``SDPA`` moves still fewer
# bytes, but loses more of the gradients of positions in low precision, and FlexAttention has no dropout. The page
# benchmarks/results/gpu_attention.md has the counts.
AUTO = ByUse(QueryBlocks(), gradients=RecomputedAttention(), graphs=PlainKernel(), elsewhere=RecomputedBatch())
# Attention without position scores.
FUSED = ByUse(
    FusedBlocks(),
    gradients=FusedTraining(),
    graphs=SDPA(),
    elsewhere=FlashLengths(),
    inference_elsewhere=FlashLengths(),
)
WINDOWS = ByUse(inference=WindowsInTurn(), gradients=AllWindows(), graphs=AllWindows())

KERNELS["auto"] = lambda backends: AUTO
KERNELS["blocks"] = lambda backends: AUTO
KERNELS["sdpa"] = SDPA
KERNELS["auto_without_scores"] = lambda backends: FUSED
KERNELS["sdpa_without_scores"] = lambda backends: SDPA(backends) if backends else FUSED
KERNELS["windows"] = lambda backends: WINDOWS
