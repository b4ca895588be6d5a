"""A folder appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from nemo_squeezeformer.errors import UserError


def check_free(folder: Path, files: Collection[str], force: bool) -> None:
    """Raises UserError where ``folder`` cannot be made or, with ``force``, has more in it than ``files``."""
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder}: there is no folder {folder.parent}; make it first")
    if not folder.exists():
        return
    if not force:
        raise UserError(f"{folder} exists; choose another name, or pass force=True (--force)")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another name for the folder")
    others = {path.name for path in folder.iterdir()} - set(files)
    if others:
        raise UserError(f"{folder} is not replaced, for {min(others)} is in it too; choose another name")


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write to; after that, if nothing was raised, it is ``folder``, in the place of one that was there."""
    folder = folder.absolute()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as around:
        new, old = Path(around, "new"), Path(around, "old")
        new.mkdir()
        yield new
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
