"""Linear layers for inference, computed by oneDNN or MKL, whichever library is faster on this CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..dispatch import in_graph, plain_module

FEW = 16  # with fewer rows, the call of oneDNN takes longer than the time that oneDNN saves


@plain_module
class FastLinear(nn.Module):
    """A linear layer with constant weights. The result equals the result of ``nn.Linear``.

    The weights are buffers, so an optimizer does not find the weights. ``torch.nn.functional.linear`` uses MKL on a
    CPU. If oneDNN is faster than MKL, the layer uses oneDNN for float32 inputs on a CPU with at least 16 rows and
    without gradients. The layer then keeps a copy of the weights in the memory layout of oneDNN. For all other inputs,
    and in recorded graphs, the layer uses ``torch.nn.functional.linear``.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.packed: Tensor | None = None

    @property
    def in_features(self) -> int:
        return self.weight.size(1)

    @property
    def out_features(self) -> int:
        return self.weight.size(0)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (..., in_features) -> (..., out_features)."""
        if not self.is_for_onednn(x):
            return linear(x, self.weight, self.bias)
        packed = self.packed  # read once, because another thread may replace it
        if packed is None:
            packed = self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        return torch.ops.mkldnn._linear_pointwise(x, packed, self.bias, "none", [], "")

    def is_for_onednn(self, x: Tensor) -> bool:
        """Return True if oneDNN computes the layer for the input ``x``."""
        return (
            not in_graph()
            and x.dtype == self.weight.dtype == torch.float32
            and x.device.type == "cpu"
            and x.numel() >= FEW * x.size(-1)
            and not (torch.is_grad_enabled() and x.requires_grad)
            and not torch.is_autocast_enabled("cpu")
            and is_onednn_faster()
        )

    def _apply(self, *args: Any) -> Any:
        self.packed = None  # the weights may change here
        module: Any = super()
        return module._apply(*args)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}  # the packed layout depends on the CPU, so a copy packs again


@plain_module
class Rows(nn.Module):
    """A linear layer that computes a part of the outputs of ``whole``.

    The part has ``count`` outputs and begins at output ``first``. The weights are views of the weights of ``whole``.
    """

    def __init__(self, whole: FastLinear, first: int, count: int):
        super().__init__()
        self.whole, self.first, self.count = whole, first, count

    @property
    def weight(self) -> Tensor:
        return self.whole.weight.narrow(0, self.first, self.count)

    @property
    def bias(self) -> Tensor | None:
        return None if self.whole.bias is None else self.whole.bias.narrow(0, self.first, self.count)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the part of the layer: (..., in_features) -> (..., count)."""
        return linear(x, self.weight, self.bias)


@cache
def is_onednn_faster() -> bool:
    """Return True if oneDNN with packed weights is faster than MKL on this CPU.

    The function measures both libraries once per process. The measurement takes a few milliseconds.
    """
    if not (hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch._C._has_mkldnn):
        return False
    with torch.inference_mode():
        x, weight = torch.zeros(128, 256), torch.zeros(768, 256)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        ways: list[Callable[[], Tensor]] = [
            lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
            lambda: linear(x, weight),
        ]
        best = [float("inf")] * len(ways)
        for _ in range(15):  # the measurements alternate, so that other work on the machine affects both libraries
            for i, way in enumerate(ways):
                begun = time.perf_counter()
                way()
                best[i] = min(best[i], time.perf_counter() - begun)
    return best[0] < best[1]
