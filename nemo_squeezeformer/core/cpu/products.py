"""Matrix products with trainable weights, computed by oneDNN or MKL, whichever library is faster on this CPU.

Products that compute the gradient of a weight are equally fast with oneDNN and with MKL.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .linear import is_onednn_faster


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``: x (..., C), weight (D, C), bias (D,) -> (..., D).

    Call this function only where autograd records no gradients. ``weight`` may be a transposed view.
    """
    if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and is_onednn_faster():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return linear(x, weight, bias)
