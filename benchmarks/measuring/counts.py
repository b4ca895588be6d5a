"""What is counted of an encoder, equal on every machine: parameters and operations."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def operations(call: Callable[[], object]) -> FlopCounterMode:
    """The counter of the call's operations, of each module too; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter


def gflops(call: Callable[[], object]) -> float:
    """Operations of the call, in 10^9."""
    return operations(call).get_total_flops() / 1e9
