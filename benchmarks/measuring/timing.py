"""The times of functions that are called alternately, and the quartiles of their times.

The state of a machine changes over time. Alternate calls are affected by these changes in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import quantiles
from typing import Any

import torch

# Pairs of seconds and calls: a function that takes at least this time needs only this number of calls. From LONG on,
# the first call counts too, because the warm-up is then a small part of it.
ENOUGH = ((20.0, 1), (5.0, 2), (1.0, 3))
LONG = 5.0


def wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def further_calls(first: float, patience: float, fewest: int, most: int) -> int:
    """Return the number of further calls of a function whose first call took ``first`` seconds."""
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
    """Call the functions alternately and return the seconds of each call of each function.

    The calls of each function are spread evenly over the whole run. A change of the machine then affects all calls.

    Args:
        patience: Seconds for all calls of one function, approximately.
        fewest: Smallest number of calls of a function. Slow functions may have fewer calls, see ``ENOUGH``.
        most: Largest number of calls of a function.
        clock: The clock to read. For one thread, ``time.thread_time`` does not count the time of other programs.
    """

    def once(name: str) -> float:
        wait_for(device)
        began = clock()
        calls[name]()
        wait_for(device)
        return clock() - began

    first = {name: once(name) for name in calls}
    seconds = {name: [took] if took >= LONG else [] for name, took in first.items()}
    counts = {name: further_calls(took, patience, fewest, most) for name, took in first.items()}
    schedule = sorted(((call + 0.5) / count, name) for name, count in counts.items() for call in range(count))
    for _, name in schedule:
        seconds[name].append(once(name))
    return seconds


def alternately(calls: Mapping[str, Callable[[], object]], number: int, warm_up: int) -> dict[str, list[float]]:
    """Call each function ``warm_up + number`` times and return the seconds of the last ``number`` calls."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(warm_up + number):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repetition >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def in_milliseconds(seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Return the entry of each function for a file of results: quartiles in ``ms``, number of calls in ``turns``."""
    return {
        name: {"ms": [round(1e3 * value, 2) for value in quartiles(took)], "turns": len(took)}
        for name, took in seconds.items()
    }


def quartiles(values: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile. A single value is repeated three times."""
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
