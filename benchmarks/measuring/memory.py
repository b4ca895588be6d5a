"""The most memory that a call takes, above the model and its input; a process of its own for every measurement."""

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
    """A size out of the status of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak_here(call: Callable[[], object]) -> float:
    """MiB that this process grows by, at most, while ``call`` runs; Linux only."""
    gc.collect()
    # What was freed and kept would be taken again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / MIB


def peak_on_gpu(call: Callable[[], object]) -> float:
    """MiB that PyTorch's allocator hands out, at most, above what it had handed out before ``call``."""
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
        os._exit(0)  # nothing of the parent's is to be torn down here


def peak_in_a_process(prepare: Callable[[], Callable[[], object]], threads: int) -> float:
    """MiB that the call which ``prepare`` returns takes at most, in a fork of this process.

    This process must not have computed with several threads: a fork has only one of them, and would wait for the rest.

    Raises:
        RuntimeError: with what went wrong there, or that it was killed, as happens when memory runs out.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(prepare, threads, sender))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = "the process was killed; was there enough memory?"
    process.join()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer
