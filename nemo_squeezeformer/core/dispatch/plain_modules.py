"""The check whether a module is plain.

A fast implementation may compute with the weights of a plain module instead of calling the module. Adapters,
quantization, pruning and sharding wrap a layer, derive from the class of the layer, replace the weights or add hooks.
A layer with any of these changes is not plain and must be called.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from .graphs import in_graph

Kind = TypeVar("Kind", bound=type[nn.Module])

# The keys are the classes. torch.compile before torch 2.8 supports the lookup of a class in a dict, but not in a set.
PLAIN: dict[type, None] = dict.fromkeys((nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.SyncBatchNorm))
WEIGHTS = (nn.Parameter, Tensor)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def plain_module(kind: Kind) -> Kind:
    """Register the class ``kind`` as plain (a class decorator).

    A fast implementation may use the weights of a plain module of this class instead of calling the module. Subclasses
    are not registered.
    """
    PLAIN[kind] = None
    return kind


def is_plain(module: object) -> bool:
    """Return True if calling ``module`` is the same as computing with the weights of ``module``.

    The conditions are:

    - The class of the module is in ``PLAIN``. A parametrization (``torch.nn.utils.parametrize``) changes the class.
    - The module has no hooks, and ``forward`` is not replaced on the instance.
    - The weights are parameters or tensors, not instances of a subclass. Quantized weights are instances of a subclass.
    """
    if type(module) not in PLAIN:
        return False
    own = module.__dict__
    if "forward" in own or any(own[hooks] for hooks in HOOKS):
        return False
    if in_graph():  # while recording, the weights are tensors of the recorder
        return True
    return all(weight is None or type(weight) in WEIGHTS for weight in own["_parameters"].values())
