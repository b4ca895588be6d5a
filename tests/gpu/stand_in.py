"""A stand-in for a GPU: a device whose tensors keep their values on the CPU, for machines without a GPU.

The encoder takes the branches of other devices and gives real values and gradients. Each operation that mixes tensors
of the two devices raises an error. ``READS`` lists the operations for which a GPU would wait. Autocast, inference mode,
compilation and CUDA graphs do not work on the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "standin"
READS: list[str] = []  # operations that copied values between the device and the host


def is_available() -> bool:
    """Return True if this PyTorch supports devices that are written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def _module() -> Any:
    """Return the functions of the device that PyTorch calls."""

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    return Module()


@contextmanager
def stand_in() -> Iterator[None]:
    """Provide the device ``standin``. Enter this context before the first backward pass of the process.

    The context can be entered only once in a process.
    """
    backend_registration._setup_privateuseone_for_python_backend(NAME, _module())
    fallback = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")  # autocast changes nothing on this device
    fallback.fallback(torch.library.fallthrough_kernel)
    with _Operations(), _Lists():
        yield


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


class _Wrapper(torch.Tensor):
    """A tensor of the device, with the values in ``held``, a tensor on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _Wrapper:
        outer: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        outer.held = held
        return outer

    def __repr__(self) -> str:  # type: ignore[override]
        return f"standin({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _compute(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """The mode in which operations with ``device="standin"`` return tensors of the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Lists(TorchFunctionMode):
    """The mode in which ``torch.tensor`` and ``Tensor.tolist`` support the device. Both are recorded in ``READS``."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_ours(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs, device="cpu").to(device)
        if func is torch.Tensor.tolist and _is_ours(args[0].device):
            return args[0].detach().to("cpu").tolist()
        return func(*args, **kwargs)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call ``func`` with the tensors on the CPU, and wrap the results if the operation belongs to the device."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in given if isinstance(x, _Wrapper)]
    name, device = func._schema.name, kwargs.get("device")
    here = _is_ours(device) if device is not None else bool(ours)
    if name == "aten::copy_":
        here = isinstance(args[0], _Wrapper)
    if not ours and not here:
        return func(*args, **kwargs)
    copies = name in ("aten::_to_copy", "aten::copy_")
    if name == "aten::_local_scalar_dense" or (copies and (len(ours) < len(given) or not here)):
        READS.append(name)
    elif any(x.dim() for x in given if not isinstance(x, _Wrapper)):  # a number on the host is an argument of a kernel
        raise RuntimeError(f"{name} mixes tensors of {NAME} and of the CPU")
    if device is not None:
        kwargs = kwargs | {"device": "cpu"}
    inner_args, inner_kwargs = tree_map_only(_Wrapper, lambda x: x.held, (args, kwargs))
    outer = {id(x.held): x for x in ours}  # an operation in place returns its argument
    result = func(*inner_args, **inner_kwargs)
    if not here:
        return result
    return tree_map_only(Tensor, lambda x: outer[id(x)] if id(x) in outer else _Wrapper(x), result)
