"""The file OUT.partial: the rows of the finished utterances, with which a later run can continue.

``partial_lines`` describes the lines of the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.commands.rows.partial_lines import (
    Row,
    difference,
    header_of,
    is_cut_header,
    json_line,
    parsed,
    seconds_of,
    write_json_lines,
)
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import locks
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.files.outputs import refuse_existing, written_whole


def partial_of(output: Path) -> Path:
    """Return the path of the file that contains the finished transcripts until OUT is complete."""
    return output.with_name(output.name + ".partial")


class PartialRows:
    """The open and locked file OUT.partial. Call ``begin`` before the first ``add``, and ``close`` at the end.

    A link at OUT.partial is never followed, because it can lead to any other file of the user.

    Args:
        output: the path of OUT.
        force: replace an older OUT.partial. ``begin`` replaces the file.
        resume: continue with an older OUT.partial, if it exists.

    Attributes:
        rows: the rows of the finished utterances, by index.

    Raises:
        UserError: another process has locked OUT.partial; OUT.partial exists, and neither ``force`` nor ``resume`` is
            True; or OUT.partial cannot be created.
    """

    def __init__(self, output: Path, force: bool = False, resume: bool = False) -> None:
        self.output, self.path = output, partial_of(output)
        self.rows: dict[int, Row] = {}
        self.total = 0
        self._file = -1
        self._begun, self._header = False, 0  # size of the first line
        try:
            self._old = os.path.lexists(self.path)
            if not self._old:
                self._file = self._created()
            elif stat.S_ISREG(self.path.lstat().st_mode):
                self._file = os.open(self.path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
                self._lock()
        except OSError as error:
            raise self._unwritable(error) from error
        if self._old and not (resume or force):
            self.close()
            raise UserError(
                f"{self.path} exists, and can have the rows of an unfinished run; pass --resume to continue this run, "
                "--force to overwrite it, or choose another --output"
            )
        self._keep_old, self._force = self._old and resume, force
        if self._keep_old and self._file < 0:
            raise UserError(f"{self.path} is not a file of an unfinished run; choose another --output")
        refuse_existing((self.path,), True)
        self._data = b"".join(iter(lambda: os.read(self._file, 1 << 20), b"")) if self._keep_old else b""

    @property
    def replaces(self) -> bool:
        """True if the run that is continued was begun with ``--force`` and replaces OUT."""
        return parsed(self._data.partition(b"\n")[0]).get("replaces") is True

    @property
    def continues(self) -> bool:
        """True if the file has the rows of an unfinished run that is continued."""
        return self._keep_old

    def begin(self, utterances: Sequence[Utterance], settings: Mapping[str, Any]) -> None:
        """Write the first line, or read the finished rows of the run that is continued.

        Args:
            utterances: all utterances of the input.
            settings: the values on which the rows depend, by the name that a message shows, for example ``--decoder``.

        Raises:
            UserError: the unfinished run had other utterances or other settings, or the file cannot be written.
        """
        header = header_of(utterances, settings)
        first = (json_line({**header, "replaces": self._force}) + "\n").encode()
        try:
            if self._old and not self._keep_old:
                self._replace()
            if not self._keep_old or not self._read(header, utterances):
                self._begun, self._header = True, len(first)
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
                self._write(first)
        except OSError as error:
            raise self._unwritable(error) from error
        self.total = len(utterances)

    def add(self, finished: Iterable[tuple[int, Utterance, Row]], whole: bool = True) -> None:
        """Append rows of utterances. A later run transcribes an utterance again if its row is not ``whole``.

        A row with the field ``error`` is finished, but a later run tries it again.

        Raises:
            UserError: the file cannot be written, for example because the disk is full.
        """
        lines = []
        finished = list(finished)
        for index, utterance, row in finished:
            entry = {
                "index": index,
                "seconds": seconds_of(utterance),
                "whole": whole and "error" not in row,
                "row": row,
            }
            lines.append(json_line(entry) + "\n")
        try:
            self._write("".join(lines).encode())
        except OSError as error:
            raise self._unwritable(error) from error
        if whole:
            self.rows.update((index, row) for index, _, row in finished)

    def finish(self, write: Callable[[Path, list[Row]], None] = write_json_lines) -> None:
        """Write the complete output OUT in one step, in the order of the input, then remove OUT.partial.

        Args:
            write: a function that writes the rows to a path that does not exist, as a file or as a folder.

        Raises:
            UserError: OUT cannot be written, for example because the disk is full. OUT.partial keeps all rows.
        """
        try:
            with written_whole(self.output) as ordered:
                write(ordered, [self.rows[index] for index in range(self.total)])
        except OSError as error:
            raise UserError(f"{self.output} cannot be written ({error.strerror})") from error
        self.remove()

    def remove(self) -> None:
        """Remove OUT.partial."""
        if os.name == "nt":
            self._close()
        self.path.unlink(missing_ok=True)
        self._close()

    def close(self) -> None:
        """Close the file. Remove the file if this run has created it and no row is in it."""
        if self._file >= 0:
            mine = self._begun or not self._old
            if mine and os.fstat(self._file).st_size <= self._header:
                self.remove()
        self._close()

    @property
    def kept(self) -> str:
        """After ``close``, a sentence about the rows in the file and how to continue; empty if the file is removed."""
        if not self.total or not self.path.exists():
            return ""
        return (
            f"{len(self.rows)} of {self.total} utterances are done: the rows are in {self.path}; run the command again "
            "with --resume to continue"
        )

    def _created(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.open(self.path, flags, 0o666)
        except FileExistsError:
            raise UserError(
                f"{self.path} exists: another process has just created it; choose another --output"
            ) from None
        self._lock()
        return self._file

    def _lock(self) -> None:
        same = (
            locks.lock(self._file) and self.path.exists() and os.path.samestat(os.fstat(self._file), self.path.stat())
        )
        if not same:
            self._close()
            raise UserError(f"another process writes {self.path}; wait for its end, or choose another --output")

    def _replace(self) -> None:
        """Remove the old file or link, and create a new file.

        The old file stays locked until the new file is locked.
        """
        old, self._file = self._file, -1
        self.path.unlink()
        try:
            self._created()
            self._begun = True
        finally:
            if old >= 0:
                locks.close(old)

    def _read(self, header: Row, utterances: Sequence[Utterance]) -> bool:
        """Read the finished rows, and drop the bytes after the last whole row. Return False if no row has been written.

        Raises:
            UserError: the file comes from other settings or utterances.
        """
        lines = self._data.split(b"\n")[:-1]
        if not lines and is_cut_header(self._data):  # killed before the first line was written
            return False
        different = difference(parsed(lines[0]) if lines else {}, header)
        if different:
            raise UserError(
                f"--resume: {self.path} comes from another call: {different}; give the same inputs and options, or "
                "pass --force in place of --resume to begin again"
            )
        end = self._header = len(lines[0]) + 1
        for line in lines[1:]:
            entry = parsed(line)
            index, row = entry.get("index"), entry.get("row")
            if not isinstance(index, int) or not isinstance(row, dict) or not 0 <= index < len(utterances):
                break  # a power failure can leave a line with other bytes
            if entry.get("whole") and entry.get("seconds") == seconds_of(utterances[index]):
                self.rows[index] = row
            else:
                self.rows.pop(index, None)
            end += len(line) + 1
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return True

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be written ({error.strerror}); choose another --output, or make room")

    def _close(self) -> None:
        if self._file >= 0:
            locks.close(self._file)
            self._file = -1
