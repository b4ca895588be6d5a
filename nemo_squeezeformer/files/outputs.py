"""Checks of outputs before any work, and the writing of outputs that appear only when they are complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from nemo_squeezeformer.errors import UserError


def require_folder(output: Path, called: str) -> None:
    """Raise UserError if the parent folder of ``output`` does not exist. The message begins with ``called``."""
    if not output.absolute().parent.is_dir():
        raise UserError(f"{called}: there is no folder {output.parent}; create it first")


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Raise UserError for the first path that exists. If ``force`` is True, raise the error only for a folder."""
    for path in paths:
        if os.path.lexists(path) and not force:  # also a link that leads to no file
            raise UserError(f"{path} exists; choose another --output, or pass --force to overwrite it")
        if path.is_dir():
            raise UserError(f"{path} is a folder, but the output is a file; choose another --output")


def strangers(folder: Path, known: Iterable[str]) -> list[str]:
    """Return the names in ``folder`` that are not in ``known``. A folder with unknown names must not be replaced."""
    return sorted({path.name for path in folder.iterdir()} - set(known))


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder. At the end, move the file or folder to ``path``.

    The new file or folder replaces an existing file or folder at ``path``. After an exception, ``path`` is unchanged
    and the temporary files are removed.
    """
    with all_written_whole(path.absolute().parent) as folder:
        yield folder / path.name


@contextlib.contextmanager
def all_written_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder. At the end, move all files and folders in the temporary folder to ``folder``.

    The temporary folder is inside ``folder``, because a rename is atomic only within one file system.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as around:
        new, old = Path(around, "new"), Path(around, "old")
        for made in (new, old):
            made.mkdir()
        yield new
        for entry in sorted(new.iterdir()):
            _put(entry, folder / entry.name, old / entry.name)


def _put(new: Path, path: Path, old: Path) -> None:
    """Rename ``new`` to ``path``, and replace an existing file or folder of the same kind.

    An existing folder is renamed to ``old``.

    Raises:
        OSError: ``new`` is a file and ``path`` is a folder, or ``new`` is a folder and ``path`` is a file.
    """
    if new.is_dir() and path.is_dir():  # a rename cannot replace a folder that contains files
        os.rename(path, old)
    try:
        os.replace(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
