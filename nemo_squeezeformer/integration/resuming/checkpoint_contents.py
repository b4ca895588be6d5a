"""A check of a Lightning checkpoint before Lightning resumes from it: the file must not run code.

Lightning 2.4 loads every object in a checkpoint, and an object can run any program while it is loaded.
"""

import contextlib
import os
import pickle
import sys
import typing
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path, PosixPath
from typing import Any

import torch
from omegaconf.base import Metadata, Node

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import finite_weights

TRUST = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # PyTorch's own variable
BUILTINS = (int, float, bool, str, bytes, list, dict, tuple)
ANNOTATIONS = (typing.Any, typing.List, typing.Dict, typing.Optional, typing.Union, typing.Tuple)  # noqa: UP006
PLAIN: dict[str, Any] = {
    **{f"builtins.{kind.__name__}": kind for kind in BUILTINS},
    **{str(annotation): annotation for annotation in ANNOTATIONS},
    "collections.defaultdict": defaultdict,
    "pathlib.PosixPath": PosixPath,
}


class DamagedCheckpoint(UserError):
    """The error for a checkpoint that is incomplete or damaged."""


def require_data(path: str) -> None:
    """Check that the checkpoint at ``path`` contains only tensors, plain values and configurations.

    PyTorch's loader of weights makes the decision. It loads no tensor here, so the check takes milliseconds. A path
    that is not a local file is not checked. If the environment sets ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``, the user
    trusts the file, and the check does nothing.

    Raises:
        UserError: the file contains other objects.
        DamagedCheckpoint: the file is damaged.
    """
    if Path(path).is_file() and not _is_trusted():
        read_data(path, device="meta")


def require_finite(path: str) -> None:
    """Check that the weights and statistics in the checkpoint at ``path`` are finite numbers.

    A path that is not a local file is not checked.

    Raises:
        UserError: a weight or a statistic contains NaN or an infinite value.
    """
    if not Path(path).is_file():
        return
    weights = read_data(path).get("state_dict", {})
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    if names := finite_weights.not_finite(tensors):
        raise UserError(f"training does not resume from {path}: {finite_weights.complaint(names, len(tensors))}")


def read_data(path: str, device: str = "cpu") -> dict[str, Any]:
    """Return the contents of a checkpoint that contains only tensors, plain values and configurations.

    The tensors stay in the file until they are read. On the device ``meta`` they are never read.

    Raises:
        UserError: the file contains other objects, and the user does not trust the file.
        DamagedCheckpoint: the file is damaged.
    """
    is_zip, names, known = zipfile.is_zipfile(path), list[str](), dict[str, Any]()
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip and not _is_trusted() else []
        known = {name: found for name in names if (found := _data_type(name)) is not None}
        with torch.serialization.safe_globals([(found, name) for name, found in known.items()]):
            return torch.load(path, map_location=device, mmap=is_zip, weights_only=not _is_trusted())
    except pickle.UnpicklingError as error:
        others = sorted(set(names) - set(known))
        objects = (
            f"objects that can run code when they are loaded ({', '.join(others[:3])})" if others else "no weights"
        )
        kind = UserError if others else DamagedCheckpoint
        raise kind(
            f"{path} contains {objects}, so it is not loaded; use another checkpoint, or, if you trust the file, set "
            f"{TRUST}=1 in the environment"
        ) from error
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedCheckpoint(f"{path} is damaged ({reason}); remove it, and use an earlier checkpoint") from error


@contextlib.contextmanager
def plain_objects(path: str) -> Iterator[None]:
    """Let PyTorch's loader of weights accept the plain values and configurations in the checkpoint at ``path``.

    A path that is not a local file changes nothing.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    known: list[Any] = [(found, name) for name in names if (found := _data_type(name)) is not None]
    with torch.serialization.safe_globals(known):
        yield


def _is_trusted() -> bool:
    return os.environ.get(TRUST, "0").lower() in ("1", "y", "yes", "true")


def _data_type(name: str) -> Any:
    """Return the type with this name if its objects are plain values or configurations, otherwise None."""
    if name in PLAIN:
        return PLAIN[name]
    module, _, attribute = name.rpartition(".")
    if not module.startswith(("omegaconf.", "nemo.collections.", "nemo.core.", "nemo.utils.")):
        return None
    found = getattr(sys.modules.get(module), attribute, None)  # the classes of a model are imported with the model
    if not isinstance(found, type) or f"{found.__module__}.{found.__qualname__}" != name:
        return None
    return found if issubclass(found, (Node, Metadata, Enum)) or is_dataclass(found) else None
