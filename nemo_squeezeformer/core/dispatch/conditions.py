"""When forms for training stand in for modules as they are written: gradients on a CPU, no graph, plain modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .graphs import in_graph

DEVICES = {"cpu"}  # where they are known to be faster and leaner; a GPU's own kernels draw and multiply at once


def trains(x: Tensor, *modules: nn.Module) -> bool:
    """Whether gradients are wanted of ``x`` or ``modules``, and these are no more than their weights.

    A module that is wrapped (LoRA, FSDP), parametrised or has hooks must compute itself. Graphs get what is written.
    """
    if not torch.is_grad_enabled() or x.device.type not in DEVICES or in_graph():
        return False
    wanted = x.requires_grad or any(weight.requires_grad for module in modules for weight in module.parameters())
    return wanted and all(as_written(module) for module in modules)


def as_written(module: nn.Module) -> bool:
    """Whether calling ``module`` is the same as computing with its weights."""
    file = type(module).__module__
    core = __package__.rpartition(".")[0]
    plain = file.startswith(("torch.nn.modules", core)) and not file.startswith((f"{core}.inference", f"{core}.cpu"))
    return plain and not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def low_precision(*tensors: Tensor | None) -> list[Any]:
    """``tensors`` as autocast would give them to a linear layer."""
    device = next(x.device.type for x in tensors if x is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    low = torch.get_autocast_dtype(device)
    return [None if x is None else x.to(low) for x in tensors]
