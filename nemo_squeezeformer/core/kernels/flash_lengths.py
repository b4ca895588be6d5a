"""Flash attention on a GPU for a batch with padding: the kernel reads the lengths, so no mask is needed.

Flash kernels have no argument for a mask. PyTorch's ``varlen_attn`` computes sequences of different lengths, which are
one after another in one tensor. Here each utterance is two sequences: its valid frames and its padding. Therefore the
batch does not have to be packed, and no length is read back from the GPU.
"""

from __future__ import annotations

import math
from functools import cache
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..attention.kernel import Operands
from ..dropout import rate_of
from ..frames.masks import Frames
from .fused_blocks import FusedBlocks
from .fused_windows import FusedWindows
from .sdpa import MULTIPLES


class FlashLengths(FusedWindows):
    """A kernel with the results of ``PlainKernel`` for operands without position scores.

    The kernel calls ``varlen_attn`` under these conditions: PyTorch has ``varlen_attn`` with windows, the GPU has
    compute capability 8.0 or higher, the operands are float16 or bfloat16, the heads have at most 192 values, the
    context has no chunks, and there is no dropout. In all other cases the kernel is ``FusedWindows`` in training, and
    ``FusedBlocks`` in inference.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        q, k, v = operands[:3]
        drops = rate_of(dropout) > 0.0
        if not drops and not frames.past and not frames.context.chunk and has_flash(q):
            return by_lengths(q, k, v, frames)
        if torch.is_grad_enabled() or frames.past:
            return super().__call__(operands, frames, dropout)
        return BLOCKS(operands, frames, dropout)


BLOCKS = FusedBlocks()
# Maximum size of a head. PyTorch's flash kernels have 256 in inference, but some GPUs train only up to 192.
WIDEST = 192


def has_flash(q: Tensor) -> bool:
    """Return True if ``varlen_attn`` exists and supports the dtype, the device and the head size of ``q``."""
    low = q.dtype in (torch.float16, torch.bfloat16)
    return low and q.size(-1) <= WIDEST and q.device.type == "cuda" and _is_new(q.device.index)


@cache
def _is_new(device: int | None) -> bool:
    """Return True if PyTorch and the GPU are new enough for ``varlen_attn`` with windows."""
    return has_windows() and torch.cuda.get_device_capability(device) >= (8, 0)


def has_windows() -> bool:
    """Return True if PyTorch has ``varlen_attn`` with a scale and windows. The first versions had neither."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= signature(varlen_attn).parameters.keys()


def by_lengths(q: Tensor, k: Tensor, v: Tensor, frames: Frames) -> Tensor:
    """Return the attended values (B, H, T, d) of each utterance, and zeros at padding."""
    from torch.nn.attention.varlen import varlen_attn

    b, h, t, d = q.shape
    filling = -d % MULTIPLES["cuda"]
    rows = [pad(x, (0, filling)).transpose(1, 2).flatten(0, 1) for x in (q, k, v)]  # (B * T, H, d)
    ends = boundaries(frames.lengths, t)
    window = (frames.context.left, frames.context.right)
    seen = varlen_attn(rows[0], rows[1], rows[2], ends, ends, t, t, scale=1.0 / math.sqrt(d), window_size=window)
    assert isinstance(seen, Tensor)
    attended = seen.view(b, t, h, d + filling).transpose(1, 2)[..., :d]
    return attended.masked_fill(frames.padding[:, None, :, None], 0.0)


def boundaries(lengths: Tensor, t: int) -> Tensor:
    """Return the boundaries (2B + 1,) of the valid frames and of the padding of each utterance, for ``varlen_attn``.

    Utterance i has the rows ``i * t`` to ``(i + 1) * t - 1``. A sequence can be empty.
    """
    start = torch.arange(lengths.size(0), device=lengths.device) * t
    ends = torch.stack([start + lengths.clamp(max=t), start + t], dim=1).flatten()
    return pad(ends, (1, 0)).to(torch.int32)
