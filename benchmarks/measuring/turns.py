"""Calls that take turns, so that all see the same machine, and the quartiles of what they took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import quantiles
from typing import Any

import torch

# From so many seconds a call on, so many turns are enough; from LONG on the first one counts: little of it warms up.
ENOUGH = ((20.0, 1), (5.0, 2), (1.0, 3))
LONG = 5.0


def wait_for(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def turns(first: float, patience: float, fewest: int, most: int) -> int:
    """How many more turns a call gets that took ``first`` seconds in its first one."""
    if first >= LONG:
        return next(number for least, number in ENOUGH if first >= least) - 1
    fewest = min(fewest, next((number for least, number in ENOUGH if first >= least), fewest))
    return min(max(int(patience / max(first, 1e-6)), fewest), most)


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    patience: float,
    fewest: int = 5,
    most: int = 25,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every turn of every call. Turns are spread evenly, so that all see the same machine.

    A call gets about ``patience`` seconds in all, but ``fewest`` turns at least, or for long ones what is ENOUGH, and
    ``most`` at most. With one thread ``time.thread_time`` leaves out what other programs take.
    """

    def once(name: str) -> float:
        wait_for(device)
        began = clock()
        calls[name]()
        wait_for(device)
        return clock() - began

    first = {name: once(name) for name in calls}
    seconds = {name: [took] if took >= LONG else [] for name, took in first.items()}
    counts = {name: turns(took, patience, fewest, most) for name, took in first.items()}
    schedule = sorted(((turn + 0.5) / count, name) for name, count in counts.items() for turn in range(count))
    for _, name in schedule:
        seconds[name].append(once(name))
    return seconds


def equal_turns(calls: Mapping[str, Callable[[], object]], number: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of ``number`` turns of every call; ``warm_up`` turns before them do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm_up + number):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def in_milliseconds(seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """What a file of results holds of the turns of each call: quartiles in ``ms``, and how many ``turns``."""
    return {
        name: {"ms": [round(1e3 * value, 2) for value in quartiles(took)], "turns": len(took)}
        for name, took in seconds.items()
    }


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile; of a single value, itself."""
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
