"""The memory of this process: memory that is kept or limited, and the available memory."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

from nemo_squeezeformer.process.peak_memory import memory_of_machine

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of malloc.h

KERNELS = 128  # more than the layers of a batch need; with fewer kernels, the layers would compile them again


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


def limit_kernels() -> None:
    """Make PyTorch keep the kernels of only a few shapes. Call this function before the first convolution.

    On a CPU, PyTorch's convolutions come from oneDNN, which compiles a kernel for each shape and keeps 1024 kernels.
    Batches of audio have nearly always new shapes. The kernels of earlier batches are not needed again, and fill
    hundreds of megabytes in hours of audio. A value in the environment stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))


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
    if kib is None:
        return None
    available = int(kib.split()[0]) * 1024
    return min(available, memory_of_machine() or available)  # a container can have less memory than the machine
