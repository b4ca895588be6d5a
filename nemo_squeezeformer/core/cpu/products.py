"""Matrix products with weights that still change, by the faster of the libraries that PyTorch has for the CPU at hand.

Those that make the gradient of a weight are as fast by either.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .linear import is_onednn_faster


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C), (D, C) -> (..., D), where no gradient is recorded. ``weight`` may lie in memory as its transpose."""
    if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and is_onednn_faster():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return linear(x, weight, bias)
