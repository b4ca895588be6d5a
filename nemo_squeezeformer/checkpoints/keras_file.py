"""A function that reads the arrays of a Keras weight file (HDF5) by name, in the order of Keras' lists of names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_squeezeformer.errors import UserError


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
            f"reading {path} needs h5py, which is not installed; pip install 'nemo-squeezeformer[tensorflow]'"
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
            arrays = dict(_arrays(file.get("model_weights", file)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); check that the file is complete") from error
    if not arrays:
        raise UserError(
            f"{path} names no arrays in weight_names, so it is not a weight file of Keras 2; give a file that "
            "Keras' save_weights has written"
        )
    return arrays


def _arrays(root: Any) -> Iterator[tuple[str, Tensor]]:
    import h5py

    datasets: set[str] = set()
    root.visititems(lambda _, item: datasets.add(item.name) if isinstance(item, h5py.Dataset) else None)
    named = set()
    for group in (item for item in root.values() if isinstance(item, h5py.Group)):
        for name in _names(group):
            dataset = group.get(name) if name else None
            if not isinstance(dataset, h5py.Dataset):
                raise UserError(f"{name} is listed in weight_names of {group.name}, but this array does not exist")
            if name in named:
                raise UserError(f"{name} is listed twice in weight_names")
            named.add(name)
            datasets.discard(dataset.name)
            yield name, _tensor(name, dataset)
    if named and datasets:
        raise UserError(f"these arrays are missing in weight_names: {', '.join(sorted(datasets)[:5])}")


def _names(group: Any) -> Iterator[str]:
    """Yield the ``weight_names`` of a group.

    If the list of names is too long for one attribute, Keras splits the list into the attributes ``weight_names0``,
    ``weight_names1`` and so on.
    """
    attributes = ["weight_names"]
    while f"weight_names{len(attributes) - 1}" in group.attrs:
        attributes.append(f"weight_names{len(attributes) - 1}")
    for attribute in attributes:
        for name in group.attrs.get(attribute, ()):
            yield name.decode() if isinstance(name, bytes) else str(name)


def _tensor(name: str, dataset: Any) -> Tensor:
    if dataset.dtype.kind != "f":
        raise UserError(f"{name} has the dtype {dataset.dtype}; weights have a floating-point dtype")
    tensor = torch.as_tensor(dataset.astype("float32")[()])
    if not tensor.isfinite().all():
        raise UserError(f"{name} contains numbers that are not finite; the training of these weights has failed")
    return tensor
