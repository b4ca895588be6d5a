"""The memory of this process: how much it can have, and that it keeps what it has."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_memory() -> bool:
    """Has this process keep memory that it frees, where the C library is glibc; whether it is.

    Else tensors of tens of megabytes go back to the system at once, and to get them anew, page by page, takes a third
    of the time of long audio, and the more, the longer it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt, largest = ctypes.CDLL(None).mallopt, 2**31 - 1
    return all([mallopt(option, largest) for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD)])


def available_memory(device: Any) -> int | None:
    """Bytes that a program can have on ``device``, or None where that is not to be known."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = dict(line.split(":") for line in lines).get("MemAvailable")
    return None if kib is None else int(kib.split()[0]) * 1024
