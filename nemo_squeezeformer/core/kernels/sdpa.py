"""PyTorch's fused kernels for attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from ..attention.kernel import Operands, PlainKernel, position_scores
from ..frames.masks import Frames

# The fused kernels of a device need a head size that is a multiple of this number. The model sizes xs, s and m have
# head sizes of 36, 49 and 81.
MULTIPLES = {"cuda": 8}


class SDPA(PlainKernel):
    """A kernel that calls PyTorch's ``scaled_dot_product_attention``, with the position scores as the additive mask.

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
        content, k, v, position, p, _ = operands
        blocked = None if frames.blocked is None else frames.blocked[:, None]  # (B, 1, T, S)
        bias = None
        if position is not None and p is not None:
            bias = position_scores(position, p, k.size(2)) / math.sqrt(content.size(-1))
        if blocked is not None:
            bias = content.new_zeros(blocked.shape) if bias is None else bias
            bias = bias.masked_fill(blocked, -10000.0)
        rate, d = dropout.p if dropout.training else 0.0, content.size(-1)
        filling = -d % MULTIPLES.get(content.device.type, 1)
        if filling:  # the additional zeros do not change the products
            content, k, v = pad(content, (0, filling)), pad(k, (0, filling)), pad(v, (0, filling))
        with sdpa_kernel(self.backends) if self.backends else nullcontext():
            attended = scaled_dot_product_attention(content, k, v, bias, rate, scale=1.0 / math.sqrt(d))[..., :d]
        return attended if blocked is None else attended.masked_fill(blocked.all(dim=-1, keepdim=True), 0.0)
