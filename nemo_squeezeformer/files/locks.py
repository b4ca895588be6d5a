"""Locks on open files. The system releases a lock when the process ends, also after a kill."""

from __future__ import annotations

import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows refuses to remove or to replace a file that a process has opened
    fcntl = None  # type: ignore[assignment]

_locked: set[int] = set()  # descriptors of the locked files of this process


def lock(descriptor: int) -> bool:
    """Lock an open file. Return False if another process has locked the file.

    Return True without a lock if the system or the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        return True
    _locked.add(descriptor)
    return True


def close(descriptor: int) -> None:
    """Close a file and release the lock of the file."""
    _locked.discard(descriptor)
    os.close(descriptor)


def _close_copies() -> None:
    """Close the files in a process that was forked. Otherwise the lock would last as long as this process."""
    while _locked:
        with contextlib.suppress(OSError):
            os.close(_locked.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
