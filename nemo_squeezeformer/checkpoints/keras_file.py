"""A function that reads the arrays of a Keras weight file (HDF5) by name, in the order of Keras' lists of names."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import extras

# Keras does not compress weights. Weights that another program has compressed become a few times larger.
MOST_BYTES_PER_BYTE, SMALL_FILE = 20, 2**20


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return all arrays of a file in float32, by Keras name, for example ``conformer/.../kernel:0``.

    The file may also contain a whole Keras model. The function does not read the state of the optimizer.

    Raises:
        UserError: h5py is not installed, the path is not an HDF5 file, or the file is incomplete. Keras' lists name an
            array twice, do not name an array, or name an array that does not exist. The dtype of an array is not a
            floating-point dtype, or an array contains numbers that are not finite.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError(
            f"reading {path} needs h5py, which is not installed; run: {extras.install('tensorflow')}"
        ) from error
    if not path.is_file():
        raise UserError(f"there is no file {path}; give an .h5 file of weights")
    if not h5py.is_hdf5(path):
        raise UserError(
            f"{path} is not an HDF5 file, as Keras' save_weights(...h5) writes it; check that the download is complete "
            "and unpacked"
        )
    try:
        with h5py.File(path, "r") as file:
            with _place("the list of its groups"):
                root = _inside(file, "model_weights") if "model_weights" in file else file
            arrays = dict(_arrays(root, MOST_BYTES_PER_BYTE * path.stat().st_size + SMALL_FILE))
    except UserError as error:
        raise UserError(" ".join(f"{path}: {error}".split())) from error
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}); check that the file is complete") from error
    if not arrays:
        raise UserError(
            f"{path} names no arrays in weight_names, so it is not a weight file of Keras 2; give a file that "
            "Keras' save_weights has written"
        )
    return arrays


def _arrays(root: Any, most_bytes: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of ``weight_names``, whose declared sizes must not exceed ``most_bytes`` together."""
    import h5py

    datasets = set(_datasets(root, set()))
    named = set()
    for group in (item for item in root.values() if isinstance(item, h5py.Group)):
        for name in _names(group, most_bytes):
            with _place(name):
                dataset = group.get(name) if name else None
                if not isinstance(dataset, h5py.Dataset):
                    raise UserError(f"{name} is listed in weight_names of {group.name}, but this array does not exist")
                if name in named:
                    raise UserError(f"{name} is listed twice in weight_names")
                named.add(name)
                datasets.discard(dataset.name)
                most_bytes -= 4 * dataset.size
                if most_bytes < 0:
                    raise UserError(
                        f"{name} has the shape {dataset.shape}, which is too large for the size of the file"
                    )
                yield name, _tensor(name, dataset)
    if named and datasets:
        raise UserError(f"these arrays are missing in weight_names: {', '.join(sorted(datasets)[:5])}")


def _datasets(group: Any, seen: set[int]) -> Iterator[str]:
    """Yield the names of all datasets in a group and the groups below it. Nothing is read from the datasets.

    Raises:
        UserError: a link or a dataset leads to another place or to another file, or the file is damaged.
    """
    import h5py

    with _place(group.name):
        seen.add(h5py.h5o.get_info(group.id).addr)
        names = list(group)
    for name in names:
        with _place(f"{group.name.rstrip('/')}/{name}"):
            item = _inside(group, name)
            below = isinstance(item, h5py.Group) and h5py.h5o.get_info(item.id).addr not in seen
        if below:
            yield from _datasets(item, seen)
        elif isinstance(item, h5py.Dataset):
            yield item.name


def _inside(group: Any, name: str) -> Any:
    """Return the item ``name`` of ``group``. Raise UserError if the data of the item are in another file."""
    import h5py

    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{name} is a link to another place ({type(link).__name__}); give a file without links")
    item = group[name]
    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise UserError(f"{item.name} takes its numbers from another file; give a file that contains all its numbers")
    return item


@contextlib.contextmanager
def _place(name: str) -> Iterator[None]:
    """Raise UserError with ``name`` for an error of h5py. h5py reports damage with many kinds of errors."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(f"{name} is damaged ({reason}); download or copy the file again") from error


def _names(group: Any, most_bytes: int) -> Iterator[str]:
    """Yield the ``weight_names`` of a group.

    If the list of names is too long for one attribute, Keras splits the list into the attributes ``weight_names0``,
    ``weight_names1`` and so on.
    """
    attributes = ["weight_names"]
    with _place(f"the list of the attributes of {group.name}"):
        while f"weight_names{len(attributes) - 1}" in group.attrs:
            attributes.append(f"weight_names{len(attributes) - 1}")
    for attribute in attributes:
        with _place(f"{attribute} of {group.name}"):
            if attribute not in group.attrs:
                continue
            declared = group.attrs.get_id(attribute)
            if math.prod(declared.shape) * declared.dtype.itemsize > most_bytes:
                raise UserError(f"{attribute} of {group.name} is too large for the size of the file")
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[attribute]]
        yield from names


def _tensor(name: str, dataset: Any) -> Tensor:
    if dataset.dtype.kind != "f":
        raise UserError(f"{name} has the dtype {dataset.dtype}; weights have a floating-point dtype")
    if not dataset.size:
        raise UserError(f"{name} has the shape {dataset.shape}; weights have at least one number")
    tensor = torch.as_tensor(dataset.astype("float32")[()])
    if not tensor.isfinite().all():
        raise UserError(f"{name} contains numbers that are not finite; the training of these weights has failed")
    return tensor
