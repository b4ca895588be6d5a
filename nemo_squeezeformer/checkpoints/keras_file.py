"""The arrays of a Keras weight file (HDF5) by name, in the order in which Keras lists them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_squeezeformer.errors import UserError


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Every array of the file, in float32, by the name that it has in Keras: ``conformer/.../kernel:0``.

    A file of a whole Keras model will do too; its optimiser is left alone.

    Raises:
        UserError: h5py is not installed; the path is no such file, or one that is cut off; an array has no name in
            Keras' lists or two, a list names one that is not there, or one holds no floating-point numbers or some
            that are not finite.
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
            f"{path} is not an HDF5 file, which Keras' save_weights(...h5) writes; was the download complete, "
            "or does it need unpacking?"
        )
    try:
        with h5py.File(path, "r") as file:
            arrays = dict(_arrays(file.get("model_weights", file)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); is it complete?") from error
    if not arrays:
        raise UserError(
            f"{path} names no arrays in weight_names, so that no model of Keras 2 has saved its weights here"
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
                raise UserError(f"{name} is listed in weight_names of {group.name}, but there is no such array")
            if name in named:
                raise UserError(f"{name} is listed twice in weight_names")
            named.add(name)
            datasets.discard(dataset.name)
            yield name, _tensor(name, dataset)
    if named and datasets:
        raise UserError(f"arrays that no weight_names lists: {', '.join(sorted(datasets)[:5])}")


def _names(group: Any) -> Iterator[str]:
    """A group's ``weight_names``; where they are too long for one attribute, ``weight_names0`` and so on."""
    attributes = ["weight_names"]
    while f"weight_names{len(attributes) - 1}" in group.attrs:
        attributes.append(f"weight_names{len(attributes) - 1}")
    for attribute in attributes:
        for name in group.attrs.get(attribute, ()):
            yield name.decode() if isinstance(name, bytes) else str(name)


def _tensor(name: str, dataset: Any) -> Tensor:
    if dataset.dtype.kind != "f":
        raise UserError(f"{name} holds {dataset.dtype}, which no weight is")
    tensor = torch.as_tensor(dataset.astype("float32")[()])
    if not tensor.isfinite().all():
        raise UserError(f"{name} holds numbers that are not finite; the training it comes from has failed")
    return tensor
