"""PyTorch's fused kernels for attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from ..attention.kernel import Operands, PlainKernel, position_scores
from ..cpu.precision import low_precision, without_autocast
from ..dispatch.graphs import in_transform
from ..dropout import rate_of
from ..frames.masks import Frames

# The fused kernels of a device need a head size that is a multiple of this number. The model sizes xs, s and m have
# head sizes of 36, 49 and 81.
MULTIPLES = {"cuda": 8}


class SDPA(PlainKernel):
    """A kernel that calls PyTorch's ``scaled_dot_product_attention``, with the position scores as the additive mask.

    Without position scores, the additive mask has a value for each key instead of each query and key, unless the
    context is limited.

    Training in float16 or bfloat16 with position scores is computed in float32. A fused kernel computes the gradients
    of the scores from its rounded output. The rounding error of an output frame shifts the gradients of all scores of
    the frame in the same direction. If the values of all keys have a large common part, the gradients of the position
    weights have errors of up to 5 times the errors of ``PlainKernel`` in bfloat16
    (benchmarks/results/gpu_attention.md). NeMo's developers reported that such a training in bfloat16 diverged after
    ten hours.

    Args:
        backends: Names of ``torch.nn.attention.SDPBackend`` that PyTorch may choose from; None or an empty list
            allows all backends.

    Raises:
        ValueError: A name is unknown, or FLASH_ATTENTION, which supports no mask, is the only name.
    """

    def __init__(self, backends: Sequence[str] | None = None):
        names = list(SDPBackend.__members__)
        for name in backends or ():
            if name not in names:
                raise ValueError(
                    f"use_pytorch_sdpa_backends={list(backends or ())}: {name!r} is unknown; choose from {names}"
                )
        if backends and set(backends) == {"FLASH_ATTENTION"}:
            raise ValueError(
                f"use_pytorch_sdpa_backends={list(backends)}: FLASH_ATTENTION supports no mask, but padding and "
                "positions need a mask; add EFFICIENT_ATTENTION or MATH"
            )
        self.backends = [SDPBackend.__members__[name] for name in backends or ()]

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        if in_transform():  # PyTorch's fused kernels have only first derivatives
            return super().__call__(operands, frames, dropout)
        content, k, v, position, p = operands[:5]
        if position is not None and p is not None and trains_in_low_precision(*operands[:5]):
            low = low_precision(v)[0].dtype
            with without_autocast(v.device):
                exact = Operands(content.float(), k.float(), v.float(), position.float(), p.float())
                return self.attended(exact, frames, dropout).to(low)
        return self.attended(operands, frames, dropout)

    def attended(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d), in the precision of autocast or of the operands."""
        content, k, v, position, p, _ = operands
        bias = None
        if position is not None and p is not None:
            bias = position_scores(position, p, k.size(2)) / math.sqrt(content.size(-1))
        unseen = frames.unseen(0, content.size(2), 0, k.size(2))
        attended = self.fused(content, k, v, masked(bias, unseen, content), rate_of(dropout))
        return attended.masked_fill(frames.absent[:, None, frames.past :, None], 0.0) if frames.padded else attended

    def fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float = 0.0) -> Tensor:
        """Return the attended values (B, H, T, d) of one call of PyTorch's function.

        Shapes: q (B, H, T, d), k and v (B, H, S, d), bias (B, H, T, S) or a shape that expands to this shape.
        """
        d = q.size(-1)
        filling = -d % MULTIPLES.get(q.device.type, 1)
        if filling:  # the additional zeros do not change the products
            q, k, v = pad(q, (0, filling)), pad(k, (0, filling)), pad(v, (0, filling))
        with sdpa_kernel(self.backends) if self.backends else nullcontext():
            return scaled_dot_product_attention(q, k, v, bias, rate, scale=1.0 / math.sqrt(d))[..., :d]


def trains_in_low_precision(*operands: Tensor | None) -> bool:
    """Return True if the operands need gradients, and if autocast or the operands have a precision below float32."""
    given = [x for x in operands if x is not None]
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in given):
        return False
    return any(x.dtype in (torch.float16, torch.bfloat16) for x in low_precision(*given))


def masked(bias: Tensor | None, unseen: Tensor | None, like: Tensor) -> Tensor | None:
    """Return the additive mask of the scores: (B, H, T, S), or a shape that expands to this shape.

    ``unseen`` (B, T, S) or (B, 1, S) is True where a query does not see a key. Without ``bias``, the mask has no
    dimension of heads, and for an unlimited context no dimension of queries.
    """
    if unseen is None:
        return bias
    unseen = unseen[:, None]
    if bias is None:
        return torch.zeros(unseen.shape, dtype=like.dtype, device=like.device).masked_fill(unseen, -10000.0)
    return bias.masked_fill(unseen, -10000.0)
