"""Outputs: refused before any work if they cannot be written, and afterwards there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from nemo_squeezeformer.errors import UserError


def require_folder(output: Path, called: str) -> None:
    """Raises UserError where the folder that ``output`` is to be in does not exist; errors name it ``called``."""
    if not output.absolute().parent.is_dir():
        raise UserError(f"{called}: there is no folder {output.parent}; make it first")


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Raises UserError for the first of a command's ``paths`` that exists or, with ``force``, is a folder."""
    for path in paths:
        if path.exists() and not force:
            raise UserError(f"{path} exists; choose another --output, or pass --force to overwrite it")
        if path.is_dir():
            raise UserError(f"{path} is a folder, and a file is to be written; choose another --output")


def strangers(folder: Path, known: Iterable[str]) -> list[str]:
    """What else than ``known`` names is in ``folder``: a reason not to replace it."""
    return sorted({path.name for path in folder.iterdir()} - set(known))


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder that is ``path`` once it is complete, in the place of what was there.

    If anything is raised meanwhile, what was there stays, and nothing else does.
    """
    with all_written_whole(path.absolute().parent) as folder:
        yield folder / path.name


@contextlib.contextmanager
def all_written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write several files or folders in, which are in ``folder`` once all of them are complete.

    It is beside its final place, as a rename within one file system is all or nothing.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as around:
        new, old = Path(around, "new"), Path(around, "old")
        for made in (new, old):
            made.mkdir()
        yield new
        for entry in sorted(new.iterdir()):
            _put(entry, folder / entry.name, old / entry.name)


def _put(new: Path, path: Path, old: Path) -> None:
    """Renames ``new`` to ``path``: a file to that of a file, a folder to that of a folder, which becomes ``old``.

    Raises:
        OSError: where one of them is a file and the other a folder.
    """
    if new.is_dir() and path.is_dir():  # no rename replaces a folder
        os.rename(path, old)
    try:
        os.replace(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
