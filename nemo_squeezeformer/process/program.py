"""The run of a program: its exit status, and one line of output for an error that a user can correct."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
from collections.abc import Callable

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import consoles, extras, signals

WRONG_USE = 2  # the exit status after an error that the user can correct
REMEDIES = {  # errors of the operating system that a user can correct
    errno.EACCES: "choose another place, or change the permissions",
    errno.EDQUOT: "free space, or choose another place",
    errno.EFBIG: "raise the limit of the file size (ulimit -f), or choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free space, or choose another place",
    errno.EPERM: "choose another place, or change the permissions",
    errno.EROFS: "choose a place that can be written",
}


def run(name: str, command: Callable[[], int], extra: str | None = None) -> int:
    """Run the command of a program and return the exit status.

    The exit status is 2 after an error that the user can correct, 1 if the reader of stdout has closed the pipe, 130
    after Ctrl-C, 143 after SIGTERM, and 129 after SIGHUP.

    Args:
        name: the name of the program, which begins each line about an error.
        command: the command. It returns the exit status.
        extra: the extra that installs all modules of the program (default: the extra of the missing module).
    """
    consoles.accept_all_text()
    return signals.run_until_signal(name, lambda: _reported(name, command, extra))


def end_without_finalizing(status: int) -> None:
    """At the end of the program, flush its output, and end the process with ``status``.

    Python's finalization ends the threads that are still running. It would abort the process (SIGABRT) if a thread is
    in an operator of PyTorch (https://github.com/pytorch/pytorch/issues/38228).
    """

    def end() -> None:
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader can be gone
                output.flush()
        os._exit(status)

    atexit.register(end)


def _reported(name: str, command: Callable[[], int], extra: str | None) -> int:
    try:
        return consoles.run_for_reader(command)
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        message = extras.missing(error, "this command", extra)
        if not message:
            raise
    except OSError as error:
        if error.errno not in REMEDIES or not error.strerror:
            raise
        place = f"{error.filename}: " if error.filename else "an output cannot be written: "
        message = f"{place}{error.strerror}; {REMEDIES[error.errno]}"
    with contextlib.suppress(OSError, ValueError):  # the reader of stderr can be gone
        print(f"{name}: error: {message}", file=sys.stderr, flush=True)
    return WRONG_USE
