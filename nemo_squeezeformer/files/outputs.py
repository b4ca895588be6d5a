"""Checks of outputs before any work, and the writing of outputs that appear only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nemo_squeezeformer.errors import UserError

# The disk or the quota of the user is full, or the file is larger than the system allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# PyTorch's and safetensors' errors of a failed write do not have the number of the reason.
FULL_TEXTS = (*(os.strerror(number) for number in FULL), "unexpected pos", "file write failed")


def require_folder(output: Path, called: str, needed: int = 0) -> None:
    """Raise UserError if the parent folder of ``output`` does not exist, is read-only or has too little space.

    Args:
        output: the path to write.
        called: the beginning of the message.
        needed: the number of bytes that the output needs at least.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{called}: there is no folder {output.parent}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{called}: the folder {output.parent} is read-only; choose another folder")
    free = shutil.disk_usage(folder).free
    if free < max(needed, 1):
        raise UserError(
            f"{called}: the output needs about {needed:,} bytes, but the disk of {output.parent} has only {free:,} "
            "bytes free; free some space, or choose another folder"
        )


def size_of(source: str | Path) -> int:
    """Return the size of the file from which an output is made, in bytes. Return 0 if there is no such file."""
    path = Path(source)
    return path.stat().st_size if path.is_file() else 0


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Raise UserError for the first path that exists. If ``force`` is True, raise the error only for a folder."""
    for path in paths:
        if os.path.lexists(path) and not force:  # also a link that leads to no file
            raise UserError(f"{path} exists; choose another --output, or pass --force to overwrite it")
        if path.is_dir():
            raise UserError(f"{path} is a folder, but the output is a file; choose another --output")


def refuse_folder(folder: Path, known: Sequence[str], force: bool) -> None:
    """Raise UserError if the output folder exists and must not be replaced.

    Args:
        folder: the folder to write.
        known: the names of the files that such a folder has.
        force: if True, an existing folder is an error only if it contains other files.
    """
    if not os.path.lexists(folder):  # a link that leads to no file also exists
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another name for the folder")
    if not force:
        raise UserError(f"{folder} exists; choose another name, or pass --force (in Python: force=True) to replace it")
    if others := strangers(folder, known):
        raise UserError(f"{folder} is not replaced, because it also contains {others[0]}; choose another name")


def require_parents(output: Path) -> None:
    """Raise UserError if the missing parent folders of ``output`` cannot be created."""
    nearest = next(parent for parent in output.absolute().parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise UserError(f"{output}: {nearest} is not a folder; choose another --output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{output}: the folder {nearest} is read-only; choose another --output")


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

    The temporary folder is inside ``folder``, because a rename is atomic only within one file system. If a process is
    killed, its temporary folder ``.unfinished-...`` stays, and can be removed.

    Raises:
        UserError: the temporary folder cannot be created, or the disk is full.
    """
    try:
        around = tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-")
    except OSError as error:
        raise UserError(f"nothing can be written to the folder {folder}: {error.strerror}; choose another") from error
    with around:
        new, old = Path(around.name, "new"), Path(around.name, "old")
        try:
            for made in (new, old):
                made.mkdir()
            yield new
        except Exception as error:  # the programs that write files raise many kinds of errors
            if reason := _full(error):
                raise UserError(
                    f"the disk is full, or a file is too large for it ({reason}): the output in {folder} is not "
                    f"written, and existing files are unchanged; free some space there and in the folder of temporary "
                    f"files {tempfile.gettempdir()}"
                ) from error
            raise
        entries = sorted(new.iterdir())
        if len(entries) == 1:
            _put(entries[0], folder / entries[0].name, old / entries[0].name)
        else:
            _put_together(entries, folder, old)


def _full(error: BaseException | None) -> str:
    """Return the reason if ``error``, or an error that led to it, says that the disk is full. Otherwise return ""."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        text = " ".join(str(error).split())
        if number in FULL or (number is None and any(known in text for known in FULL_TEXTS)):
            return os.strerror(number) if number else text[:200]
        error = error.__cause__ or error.__context__
    return ""


def _put_together(entries: Sequence[Path], folder: Path, old: Path) -> None:
    """Move files that belong together to ``folder``.

    The existing files move to ``old`` first. If the process is killed here, ``folder`` never contains an old file and a
    new file together.

    Raises:
        OSError: a file cannot be moved. Then the existing files are moved back.
    """
    replaced, placed = [], []
    try:
        for entry in entries:
            path = folder / entry.name
            if os.path.lexists(path):
                if path.is_dir() != entry.is_dir():
                    raise OSError(errno.EISDIR, "a file and a folder do not replace each other", str(path))
                os.rename(path, old / entry.name)
                replaced.append(path)
        for entry in entries:
            os.rename(entry, folder / entry.name)
            placed.append((entry, folder / entry.name))
    except BaseException:
        for entry, path in placed:
            os.rename(path, entry)
        for path in replaced:
            os.rename(old / path.name, path)
        raise


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
