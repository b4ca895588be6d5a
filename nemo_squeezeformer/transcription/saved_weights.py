"""A check of the weights in a .nemo file before the model is built: their integrity, types and sizes."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import AGAIN, CONFIG, WEIGHTS

PIECE = 2**20  # bytes
SPARE = 2**26  # numbers in the tables of a model in addition to its weights


def read_header(path: str | Path, weights: Path) -> dict[str, Any]:
    """Return the weights of the archive ``path`` as tensors without data.

    Args:
        path: the archive, for messages.
        weights: the extracted file of the weights.

    Raises:
        UserError: the file is damaged, or the file contains other values than tensors.
        pickle.UnpicklingError: the file contains objects, which PyTorch loads only from trusted files.
    """
    import torch

    is_zip = zipfile.is_zipfile(weights)
    try:
        if is_zip:
            _check_sums(path, weights)
        found = torch.load(weights, map_location="meta", mmap=is_zip)
    except pickle.UnpicklingError:
        raise
    except (zipfile.BadZipFile, ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError,
            RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: {WEIGHTS} is damaged ({reason}); {AGAIN}") from error
    if not isinstance(found, Mapping) or not all(isinstance(it, torch.Tensor) for it in found.values()) or not found:
        raise UserError(f"{path}: {WEIGHTS} is not a table of tensors; use the original file")
    return {str(name): tensor for name, tensor in found.items()}


def check_fit(path: str | Path, model: Any, header: Mapping[str, Any]) -> None:
    """Compare a model on the meta device, which has no data, with the header of the weights.

    NeMo compares the names and the shapes of all weights later. This function only prevents that NeMo allocates the
    memory for a model that is much larger than the weights.

    Raises:
        UserError: the model is much larger than the weights, or a weight has integers in place of floating-point
            numbers or the reverse.
    """
    needed = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    given = sum(tensor.numel() for tensor in header.values())
    if needed > 2 * given + SPARE:
        raise UserError(
            f"{path}: {CONFIG} describes a model of {needed:,} numbers, but {WEIGHTS} has only {given:,}; use the "
            "original file"
        )
    for name, tensor in model.state_dict().items():
        if name in header and _kind(header[name]) != _kind(tensor):
            raise UserError(
                f"{path}: {WEIGHTS}: {name} has the dtype {header[name].dtype}; expected {tensor.dtype} or a similar "
                "dtype; use the original file"
            )


def _kind(tensor: Any) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _check_sums(path: str | Path, weights: Path) -> None:
    """Raise UserError if the checksum of a record does not fit its content. PyTorch does not compare the checksums."""
    wrong, records = [], 0
    with zipfile.ZipFile(weights) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path}: {WEIGHTS} is compressed, as PyTorch does not write it; use the original file")
            records += 1
            try:
                with archive.open(record) as content:
                    while content.read(PIECE):
                        pass
            except zipfile.BadZipFile:
                wrong.append(record.filename)
    if wrong and len(wrong) < records:  # PyTorch can write files without checksums, and then all are wrong
        raise UserError(
            f"{path}: the checksum of {wrong[0]!r} in {WEIGHTS} is wrong, so the weights are damaged; {AGAIN}"
        )
