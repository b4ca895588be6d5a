"""Whether a module is no more than its weights, so that an implementation may compute with these instead of calling it.

Adapters, quantisation, pruning and sharding wrap a layer, derive from its class, exchange its weights or hook into it.
Such a layer must be called.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from .graphs import in_graph

Kind = TypeVar("Kind", bound=type[nn.Module])

PLAIN: set[type] = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.SyncBatchNorm}
WEIGHTS = (nn.Parameter, Tensor)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def plain_module(kind: Kind) -> Kind:
    """Declares that calling a module of exactly this class is the same as computing with its weights."""
    PLAIN.add(kind)
    return kind


def is_plain(module: object) -> bool:
    """Whether calling ``module`` is the same as computing with its weights.

    Its class is one of ``PLAIN`` itself: a parametrisation (``torch.nn.utils.parametrize``) makes a class of its own.
    It has no hooks, no ``forward`` of its own, and its weights are no subclasses of tensors, as quantised ones are.
    """
    if type(module) not in PLAIN:
        return False
    own = module.__dict__
    if "forward" in own or any(own[hooks] for hooks in HOOKS):
        return False
    if in_graph():  # recorders put tensors of their own in the place of weights
        return True
    return all(weight is None or type(weight) in WEIGHTS for weight in own["_parameters"].values())
