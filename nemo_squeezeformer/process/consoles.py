"""The streams of a console: text that the console cannot encode, and a reader that has closed the pipe."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

READER_GONE = 1  # the exit status after the reader of stdout, for example `head`, has closed the pipe


def accept_all_text() -> None:
    """Let stdout and stderr write a character outside of their encoding as a backslash escape, for example ``\\u0142``.

    Otherwise, a command fails on its first word outside of the encoding, after the work is done.
    """
    if sys.stdout is None:  # the command was started with a closed stdout
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:  # otherwise, print(file=sys.stderr) would print on stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook has other streams
            stream.reconfigure(errors="backslashreplace")


def run_for_reader(command: Callable[[], int]) -> int:
    """Run a command, write all of its output, and return its exit status.

    If the reader of the output has closed the pipe, return 1 without a message.

    Raises:
        OSError: the output cannot be written, for example because the disk is full.
    """
    try:
        try:
            return command()
        finally:
            _write_the_rest()
    except BrokenPipeError:
        gone = [stream for stream in (sys.stdout, sys.stderr) if is_reader_gone(stream)]
        if not gone:
            raise  # the pipe of another process, for example of a worker that reads audio
        for stream in gone:
            discard(stream)
        return READER_GONE


def _write_the_rest() -> None:
    """Write the text that stdout still holds. Otherwise, Python writes it after the command, and prints a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        discard(sys.stdout)
        raise


def is_reader_gone(stream: TextIO | None) -> bool:
    """Return whether the stream is a pipe or a socket without a reader."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        poll = select.poll()
        poll.register(stream.fileno() if stream else -1, select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def discard(stream: TextIO) -> None:
    """Discard all further text of a stream. Otherwise, Python's flush at exit also fails."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test or a notebook has no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
