"""The peak memory of a call, above the model and its input. On a CPU, each measurement runs in its own process."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MIB = 2**20


def status(field: str) -> int:
    """Return a size from ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak_here(call: Callable[[], object]) -> float:
    """Return the largest growth of this process, in MiB, while ``call`` runs. It works on Linux only."""
    gc.collect()
    # Without this, ``call`` would reuse memory that the allocator has kept, and the process would not grow.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / MIB


def peak_on_gpu(call: Callable[[], object]) -> float:
    """Return the peak of PyTorch's allocated GPU memory during ``call``, in MiB, above the amount before ``call``."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def child(prepare: Callable[[], Callable[[], object]], threads: int, answer: Any) -> None:
    torch.set_num_threads(threads)
    try:
        answer.send(peak_here(prepare()))
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
    finally:
        answer.close()
        os._exit(0)  # the fork must not run the exit handlers of the parent process


def peak_in_a_process(prepare: Callable[[], Callable[[], object]], threads: int) -> float:
    """Return the peak memory, in MiB, of the call that ``prepare`` returns. Both run in a fork of this process.

    This process must not have computed with several threads. A fork has only one thread and would wait for the others.

    Raises:
        RuntimeError: The call failed, or the fork was killed, for example because memory ran out.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(prepare, threads, sender))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = "the process was killed, probably because memory ran out"
    process.join()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer
