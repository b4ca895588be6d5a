"""The lines of a manifest or of a plain text file, also of a manifest that gzip compressed."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from typing import Any, TextIO

from nemo_squeezeformer.errors import UserError

LONGEST = 2**24  # characters of a line; a longer line is not a row, and could use all memory
GZIP = b"\x1f\x8b"  # the first bytes of a gzip file
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the byte-order marks of UTF-16
UTF_8_MARK = "\ufeff"
OPEN_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # pipes of the shell, which have a writer


def read_lines(path: str | os.PathLike[str], called: str = "manifest") -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not empty. The numbers start at 1.

    A byte that is not UTF-8 becomes a surrogate, as Python's error handler ``surrogateescape`` defines it. A file
    whose name ends with ``.gz`` is decompressed. NeMo's Lhotse loader reads these files too.

    Args:
        called: the name of the kind of file in messages.

    Raises:
        UserError: the file is missing, is not a file, is empty, is not text, is damaged, or is a manifest that begins
            with a byte-order mark. NeMo does not read this manifest.
    """
    name = os.path.expanduser(path)
    _require_file(name, called)
    empty = True
    try:
        with _opened(name, called) as lines:
            number = 0
            while line := lines.readline(LONGEST):
                number += 1
                if number == 1:
                    _require_text(name, line, called)
                if len(line) == LONGEST and not line.endswith("\n"):
                    raise UserError(
                        f"{name}, line {number}: the line has more than {LONGEST:,} characters; a manifest has one "
                        "JSON object per line"
                    )
                if line.strip():
                    empty = False
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name}: the {called} cannot be read ({error}); copy the file again from its source") from None
    if empty:
        remedy = "write one JSON object with audio_filepath per line" if called == "manifest" else "write text into it"
        raise UserError(f"{name}: the {called} is empty: there is no text in the file; {remedy}")


def _require_file(name: str, called: str) -> None:
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        raise UserError(
            f"{name}: cannot be read: no such {called}; check the path (the current folder is {os.getcwd()})"
        ) from None
    if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and name.startswith(OPEN_PIPES)):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe or device"
        raise UserError(f"{name}: the {called} cannot be read, because the path is a {kind}; give the path of a file")


@contextlib.contextmanager
def _opened(name: str, called: str) -> Iterator[TextIO]:
    compressed = name.lower().endswith(".gz")
    with open(name, "rb") as file:
        start = file.peek(4)[:4]
        if compressed and start and not start.startswith(GZIP):
            raise UserError(f"{name}: the {called} is not compressed by gzip; remove .gz from the name")
        if not compressed and start.startswith(GZIP):
            raise UserError(f"{name}: the {called} is compressed by gzip; add .gz to the name, or decompress it")
        content: Any = gzip.GzipFile(fileobj=file) if compressed and start else file
        # Universal newlines, as in NeMo: a line also ends with CR.
        yield io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape")


def _require_text(name: str, line: str, called: str) -> None:
    """Raise UserError if the first line shows that the file is not UTF-8 without a byte-order mark."""
    start = line[:1000].encode("utf-8", "surrogateescape")
    if start.startswith(UTF_16):
        problem, remedy = "the file is UTF-16", f"iconv -f UTF-16 -t UTF-8 {name} > NEW"
    elif line.startswith(UTF_8_MARK) and called == "manifest":
        problem = "the file begins with a byte-order mark, which NeMo does not read"
        remedy = f"tail -c +4 {name} > NEW"
    elif "\0" in line[:1000]:
        raise UserError(f"{name}: cannot be read as text: the file has bytes that are zero; give a UTF-8 text file")
    else:
        return
    raise UserError(f"{name}: cannot be read as UTF-8: {problem}; convert it with: {remedy}")
