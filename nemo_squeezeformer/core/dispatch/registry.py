"""The dispatch registry: equations of the network, and the fast implementations of these equations.

A function or method with ``@dispatched`` is an equation. The code of the function is the reference implementation,
which follows the paper and imports no fast implementation. Other modules register fast implementations with
``@implements``. Each fast implementation has conditions on the device, on gradients, on recorded graphs, on plain
modules and on the arguments.

A call of an equation uses the first fast implementation whose conditions are true for the call. If no fast
implementation has true conditions, the call uses the reference implementation. Tests compare each fast implementation
with the reference implementation.
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
    """A fast implementation of an equation.

    ``compute`` is the function. The fields ``device`` to ``when`` are the arguments of ``implements``. While
    ``enabled`` is False, no call uses the implementation.
    """

    compute: Callable[..., Any]
    device: str | None
    gradients: bool | None
    graphs: bool
    plain: Callable[..., Iterable[nn.Module]]
    when: Callable[..., bool]
    enabled: bool = True

    def applies(self, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Return True if the implementation may compute a call with these arguments.

        The method checks cheap conditions first.
        """
        if not self.enabled or (self.gradients and not torch.is_grad_enabled()):
            return False
        if not self.when(*args, **named) or (in_graph() and not self.graphs):
            return False
        if self.device is not None and _first_tensor(args, named).device.type != self.device:
            return False
        modules = tuple(self.plain(*args, **named))
        if self.gradients is not None and self.gradients != _wants_gradients(_first_tensor(args, named), modules):
            return False
        return all(map(is_plain, modules))


_IMPLEMENTATIONS: dict[Callable[..., Any], list[Implementation]] = {}


def dispatched(equation: Function) -> Function:
    """Mark a function as an equation, for which fast implementations can be registered."""
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
    """Register a function as a fast implementation of ``equation``.

    The function must have the arguments of ``equation`` and return the results of ``equation``.

    Args:
        equation: The equation, a function or method with ``@dispatched``.
        device: Required device type of the first tensor argument. None means any device.
        gradients: True requires that the first tensor or a weight of ``plain`` needs a gradient. False requires that no
            gradient is needed. None accepts both cases.
        graphs: If True, the implementation may also be recorded as part of a graph.
        plain: Function that returns, for the arguments of a call, the modules whose weights the implementation uses.
            Each of these modules must be plain (``is_plain``).
        when: Function that returns True if the implementation supports the arguments of a call.
    """

    def register(compute: Function) -> Function:
        _IMPLEMENTATIONS[equation].append(Implementation(compute, device, gradients, graphs, plain, when))
        return compute

    return register


def implementations() -> list[Implementation]:
    """Return all registered implementations."""
    return [implementation for candidates in _IMPLEMENTATIONS.values() for implementation in candidates]


@contextmanager
def only_equations(but: Callable[[Implementation], bool] = lambda implementation: False) -> Iterator[None]:
    """Compute all equations with the reference implementations inside the context.

    Fast implementations for which ``but`` returns True stay enabled. The context is for tests and measurements in a
    single thread. The context does not change the ``kernel`` of attention.
    """
    switched = [found for found in implementations() if found.enabled and not but(found)]
    for implementation in switched:
        implementation.enabled = False
    try:
        yield
    finally:
        for implementation in switched:
            implementation.enabled = True


def _first_tensor(args: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    return next(arg for arg in (*args, *named.values()) if isinstance(arg, Tensor))


def _wants_gradients(x: Tensor, modules: tuple[nn.Module, ...]) -> bool:
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(weight.requires_grad for module in modules for weight in module.parameters())
