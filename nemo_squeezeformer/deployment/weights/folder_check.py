"""Checks of a folder with safetensors before a model is built: the files, the configuration and the shapes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from nemo_squeezeformer.errors import UserError

LARGEST_CONFIG = 2**24  # bytes; a vocabulary of 100,000 word pieces takes 2 MB
DTYPES = {
    **{name: getattr(torch, kind) for name, kind in {"F64": "float64", "F32": "float32", "F16": "float16"}.items()},
    **{"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    **{"BOOL": torch.bool},
}
AGAIN = "copy the folder again, or write it again with `nemo-squeezeformer export`"
Header = Mapping[str, tuple[torch.Size, torch.dtype]]


def require_file(folder: Path, name: str) -> Path:
    """Return the path of a file in the folder.

    A link is followed only if it has the form of a link in the cache of the Hugging Face hub. Any other link could lead
    to a file that does not belong to the model.

    Raises:
        UserError: the folder or the file is missing, or the file is a device, a pipe or another link.
    """
    path = folder / name
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder that `nemo-squeezeformer export` wrote")
    if (folder / f"{name}.index.json").exists() and not path.exists():
        raise UserError(f"{folder} has the weights in several files ({name}.index.json); give a folder with one {name}")
    if path.is_symlink() and not _is_in_cache(path):
        raise UserError(f"{path} is a link to another file; copy the file into the folder")
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a folder that `nemo-squeezeformer export` wrote")
    return path


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: the file is not JSON, or the file is too large.
    """
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"the file has more than {LARGEST_CONFIG:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}; give a folder that `nemo-squeezeformer export` wrote") from error


def read_header(path: Path) -> Header:
    """Return the shapes and the dtypes of the tensors in a file. The function does not read the tensors.

    Raises:
        UserError: the file is damaged, or a tensor has a dtype that PyTorch does not have.
    """
    header = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  the file is not a mapping
                part = file.get_slice(name)
                header[name] = (torch.Size(part.get_shape()), DTYPES[part.get_dtype()])
    except KeyError as error:
        raise UserError(f"{path}: the dtype {error} is not supported; {AGAIN}") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:200]}; {AGAIN}") from error
    return header


def check_types(settings: Mapping[str, Any], arguments: Mapping[str, inspect.Parameter], where: str) -> None:
    """Raise UserError for a setting whose value does not have the plain type of the argument."""
    plain: dict[Any, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
    for name, value in settings.items():
        kinds = plain.get(arguments[name].annotation)
        if kinds and not isinstance(value, kinds) and not (kinds == (bool,) and value in (0, 1)):
            raise UserError(f"{where}: {name} is {ascii(value)[:80]}; expected a value of type {kinds[-1].__name__}")


def check_count(source: object, settings: Mapping[str, Any], header: Header) -> None:
    """Raise UserError if the configuration has more layers than the file has tensors."""
    layers = settings.get("n_layers")
    if isinstance(layers, int) and layers > len(header):
        raise UserError(
            f"{source}: encoder: n_layers={layers}, but the weights have only {len(header)} tensors; {AGAIN}"
        )


def check_shapes(model: nn.Module, header: Header, source: object) -> None:
    """Compare a model on the meta device with the header of the weights, before memory is allocated for the model.

    Raises:
        UserError: a weight is missing or unknown, or has another shape or another kind of dtype.
    """
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in header if name in own}  # weights that share memory are in the file once
    missing = sorted(name for name, tensor in own.items() if name not in header and id(tensor) not in given)
    for what, names in (("missing", missing), ("unknown", sorted(set(header) - set(own)))):
        if names:
            shown = ", ".join(ascii(name[:100])[1:-1] for name in names[:3])
            raise UserError(f"{source}: {len(names)} {what} tensors: {shown}{', ...' * (len(names) > 3)}; {AGAIN}")
    for name, (shape, dtype) in header.items():
        if shape != own[name].shape:
            raise UserError(
                f"{source}: size mismatch for {name}: {list(shape)} in the file, {list(own[name].shape)} in the "
                f"configuration; {AGAIN}"
            )
        if dtype.is_floating_point != own[name].is_floating_point():
            raise UserError(
                f"{source}: {name} has dtype {dtype}; expected {own[name].dtype} or a similar dtype; {AGAIN}"
            )


def _is_in_cache(link: Path) -> bool:
    """Return True for ``snapshots/VERSION/FILE`` that leads to ``blobs/NAME`` beside ``snapshots``."""
    folder = link.parent.absolute()
    return folder.parent.name == "snapshots" and link.resolve().parent == (folder.parent.parent / "blobs").resolve()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")
