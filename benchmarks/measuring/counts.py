"""Counts of an encoder's parameters and operations. They are equal on every machine."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def operations(call: Callable[[], object]) -> FlopCounterMode:
    """Run ``call`` and return a counter of its operations, in total and for each module.

    A multiplication and an addition count as two operations.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter


def gflops(call: Callable[[], object]) -> float:
    """Run ``call`` and return the number of its operations, in 10^9."""
    return operations(call).get_total_flops() / 1e9
