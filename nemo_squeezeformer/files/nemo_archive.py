"""A check of a .nemo archive before its contents are used. The check reads the headers of the members only."""

from __future__ import annotations

import gzip
import io
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
MOST_MEMBERS = 10_000
LONGEST_HEADER = 2**20  # bytes; tarfile reads a header in one piece
LARGEST_RATIO = 100  # contents to archive; gzip reaches a ratio of 1000 for zeros, and less than 2 for weights
AGAIN = "copy or download the file again"


def check_archive(path: str | Path) -> dict[str, tarfile.TarInfo]:
    """Return the files in the archive by name. A name is relative to the folder of the model.

    Raises:
        UserError: the file is not an archive, or the archive is truncated or damaged. The archive lacks the
            configuration or the weights. The archive contains a link, a device or a path outside of its folder. NeMo
            leaves out or creates these members. The contents are too large for the temporary folder.
    """
    try:
        with open_archive(path) as archive:
            found: dict[str, tarfile.TarInfo] = {}
            total = 0
            for number, member in enumerate(archive):
                if number >= MOST_MEMBERS:
                    raise UserError(f"{path} has more than {MOST_MEMBERS} members, so it is not a model of NeMo")
                total += member.size
                _check_ratio(path, total)  # before the next member, because gzip expands all data up to it
                name = _name_of(path, member)
                if member.isfile() and found.setdefault(name, member) is not member:
                    raise UserError(f"{path} contains the file {shown(name)} twice; {AGAIN}")
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is truncated or damaged ({reason}); {AGAIN}") from error
    for name in (CONFIG, WEIGHTS):
        if name not in found:
            raise UserError(
                f"{path} contains no {name}: the file is incomplete, or it is not a model that NeMo has saved; {AGAIN}"
            )
    _check_space(path, total)
    return found


@contextmanager
def open_archive(path: str | Path) -> Iterator[tarfile.TarFile]:
    """Open an archive for reading: an uncompressed archive, or an archive with gzip, as old NeMo versions wrote it.

    Raises:
        UserError: the file is neither kind of archive.
        OSError, tarfile.TarError, zlib.error: the file cannot be read, or it is damaged.
    """
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content: Any = ShortReads(gzip.GzipFile(fileobj=file)) if is_gzip else ShortReads(file)
        try:
            archive = tarfile.TarFile(fileobj=content)
        except tarfile.ReadError as error:
            raise UserError(f"{path} is not a NeMo archive; give a .nemo file, as model.save_to() writes it") from error
        with archive:
            yield archive


def read_member(path: str | Path, member: tarfile.TarInfo) -> bytes:
    """Return the content of a member that ``check_archive`` has found."""
    with open_archive(path) as archive:
        content: Any = archive.extractfile(member)
        return b"".join(iter(lambda: content.read(LONGEST_HEADER), b""))


class ShortReads(io.RawIOBase):
    """A file that refuses long reads, so that a damaged or hostile header cannot fill the memory."""

    def __init__(self, file: Any):
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes.

        Raises:
            ValueError: the size is negative or larger than a header.
        """
        if not 0 <= size <= LONGEST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def shown(name: str) -> str:
    """Return a name from a file in printable characters, shortened."""
    return ascii(name if len(name) <= 80 else f"{name[:80]}...")


def _name_of(path: str | Path, member: tarfile.TarInfo) -> str:
    """Return the name of a member relative to the folder of the model.

    Raises:
        UserError: the member is neither a file nor a folder, or its path leads out of the folder.
    """
    name = posixpath.normpath(member.name)
    if name.startswith(("/", "..")) or "\0" in name:
        raise UserError(f"{path} contains {shown(member.name)}, a path outside of the archive; {AGAIN}")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise UserError(f"{path} contains {shown(member.name)}, which is neither a file nor a folder; {AGAIN}")
    return name


def _check_ratio(path: str | Path, size: int) -> None:
    own = Path(path).stat().st_size
    if size > LARGEST_RATIO * own:
        raise UserError(
            f"{path} has {own:,} bytes, but contents of {size:,} bytes, so it is truncated or not a model of NeMo; "
            f"{AGAIN}"
        )


def _check_space(path: str | Path, size: int) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{path} needs {size:,} bytes in the temporary folder {folder}, but only {free:,} bytes are free; set "
            "TMPDIR to a folder with more space"
        )
