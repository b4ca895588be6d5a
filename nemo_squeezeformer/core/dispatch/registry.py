"""Equations of the network, and the implementations that may compute them.

A function or method of the network with ``@dispatched`` is an equation: it reads as the paper has it, and imports none
of its implementations. Those are registered elsewhere by ``@implements``, each with the conditions under which it may
stand in: device, gradients, whether a graph is recorded, plain modules, and what else it needs. A call is computed by
the first implementation whose conditions hold, else by the equation. Tests hold each implementation equal to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .graphs import in_graph
from .plain_modules import is_plain

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Implementation:
    """Another way to compute an equation, and when it may be taken."""

    compute: Callable[..., Any]
    device: str | None
    gradients: bool | None
    graphs: bool
    plain: Callable[..., Iterable[nn.Module]]
    when: Callable[..., bool]
    enabled: bool = True

    def applies(self, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Whether it may compute the equation with these arguments; what is soon known is asked first."""
        if not self.enabled or (self.gradients and not torch.is_grad_enabled()):
            return False
        if not self.when(*args, **named) or (in_graph() and not self.graphs):
            return False
        if self.device is not None and _first_tensor(args).device.type != self.device:
            return False
        modules = tuple(self.plain(*args, **named))
        if self.gradients is not None and self.gradients != _wants_gradients(_first_tensor(args), modules):
            return False
        return all(map(is_plain, modules))


_IMPLEMENTATIONS: dict[Callable[..., Any], list[Implementation]] = {}


def dispatched(equation: Function) -> Function:
    """Marks an equation that implementations may compute."""
    candidates: list[Implementation] = []

    @wraps(equation)
    def computed(*args: Any, **named: Any) -> Any:
        for candidate in candidates:
            if candidate.applies(args, named):
                return candidate.compute(*args, **named)
        return equation(*args, **named)

    _IMPLEMENTATIONS[computed] = candidates
    return computed  # type: ignore[return-value]


def implements(
    equation: Callable[..., Any],
    *,
    device: str | None = None,
    gradients: bool | None = None,
    graphs: bool = False,
    plain: Callable[..., Iterable[nn.Module]] = lambda *args, **named: (),
    when: Callable[..., bool] = lambda *args, **named: True,
) -> Callable[[Function], Function]:
    """Registers a function as an implementation of ``equation``, with the same arguments and results.

    Args:
        device: type of the device that the first tensor is on; None for any.
        gradients: whether gradients of the first tensor, or of the weights of ``plain``, are wanted; None for both.
        graphs: may also be recorded as a part of a graph.
        plain: from the arguments, the modules with whose weights it computes; each must be ``is_plain``.
        when: from the arguments, whether they suit it.
    """

    def register(compute: Function) -> Function:
        _IMPLEMENTATIONS[equation].append(Implementation(compute, device, gradients, graphs, plain, when))
        return compute

    return register


def implementations() -> list[Implementation]:
    """All that are registered."""
    return [implementation for candidates in _IMPLEMENTATIONS.values() for implementation in candidates]


@contextmanager
def only_equations(but: Callable[[Implementation], bool] = lambda implementation: False) -> Iterator[None]:
    """Within it the network is computed as it is written, by no implementation, ``but`` for those that it is true of.

    It is for tests and measurements, in one thread. The ``kernel`` of attention stays what it is.
    """
    switched = [found for found in implementations() if found.enabled and not but(found)]
    for implementation in switched:
        implementation.enabled = False
    try:
        yield
    finally:
        for implementation in switched:
            implementation.enabled = True


def _first_tensor(args: tuple[Any, ...]) -> Tensor:
    return next(arg for arg in args if isinstance(arg, Tensor))


def _wants_gradients(x: Tensor, modules: tuple[nn.Module, ...]) -> bool:
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(weight.requires_grad for module in modules for weight in module.parameters())
