"""Functions that make this process keep freed memory, and that return the available memory."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of malloc.h


def keep_memory() -> bool:
    """Make this process keep freed memory for later tensors.

    Return True if the C library is glibc. With another C library, do nothing and return False. By default glibc
    returns the memory of tensors of tens of megabytes to the system at once. The process then requests the memory
    again, page by page. These requests need a third of the time of transcribing long audio. This share grows with the
    length of the audio.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt, largest = ctypes.CDLL(None).mallopt, 2**31 - 1
    return all([mallopt(option, largest) for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD)])


def available_memory(device: Any) -> int | None:
    """Return the bytes of memory that are available on ``device``, or None if the number is unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = dict(line.split(":") for line in lines).get("MemAvailable")
    return None if kib is None else int(kib.split()[0]) * 1024
