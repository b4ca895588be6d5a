"""Linear layers for inference, by the faster of the two libraries that PyTorch has for them on the CPU at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..dispatch import in_graph, plain_module

FEW = 16  # rows; below, a call of oneDNN costs more than what it gains


@plain_module
class FastLinear(nn.Module):
    """What ``nn.Linear`` gives, of weights that no longer change.

    The weights are buffers, which no optimiser finds. On a CPU, in float32 and without gradients, many rows go through
    oneDNN if that is faster than MKL, behind ``torch.nn.functional.linear``; it keeps a copy of the weights in the
    layout that it likes. Everything else, and what is recorded as a graph, is ``torch.nn.functional.linear``.
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
        """(..., in_features) -> (..., out_features)"""
        if not self.is_for_onednn(x):
            return linear(x, self.weight, self.bias)
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def is_for_onednn(self, x: Tensor) -> bool:
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
        self.packed = None  # of weights that may be others now
        module: Any = super()
        return module._apply(*args)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}  # copies pack for themselves: the layout is of this CPU


@plain_module
class Rows(nn.Module):
    """A part of a linear layer, as a layer of its own: ``count`` of its outputs from ``first`` on."""

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
        """(..., in_features) -> (..., count)"""
        return linear(x, self.weight, self.bias)


@cache
def is_onednn_faster() -> bool:
    """Whether oneDNN with packed weights is faster than MKL here: measured once a process, in some milliseconds."""
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
        for _ in range(15):  # in turn, so that what else the machine does meets both
            for i, way in enumerate(ways):
                begun = time.perf_counter()
                way()
                best[i] = min(best[i], time.perf_counter() - begun)
    return best[0] < best[1]
