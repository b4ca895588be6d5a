"""The peak memory of this process, and the memory of the machine."""

from __future__ import annotations

import os
import sys

GIB = 2**30


def peak_of_process() -> int:
    """Return the largest resident memory of this process, in bytes; 0 if the system does not say it."""
    if sys.platform == "linux":  # ru_maxrss of Linux also counts the memory of the program that started this program
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes


def memory_of_machine() -> int:
    """Return the memory that the process can use, in bytes; 0 if the system does not say it.

    A container can have less memory than the machine.
    """
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 0
    limits = map(_limit, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    return min([found, *(limit for limit in limits if limit)])


def _limit(path: str) -> int:
    """Return the limit of a container, or 0."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):  # "max" means no limit
        return 0
