"""Measurements of each rung of the ladder: parameters, operations, operations of the subsampling, and time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.ladder.rungs import BESIDE, RUNGS, build
from benchmarks.measuring import counts
from benchmarks.measuring.results import Results
from benchmarks.measuring.timing import in_milliseconds, interleaved
from nemo_squeezeformer.core import SqueezeformerEncoder


def operations(encoder: SqueezeformerEncoder, seconds: int = 30) -> dict[str, float]:
    """Return the operations for one utterance, in 10^9. A multiplication and an addition count as two operations.

    Relative attention uses 2 T - 1 positions. ``counted_by_t`` counts only T of them.

    Args:
        encoder: An encoder on the meta device.
    """
    with torch.device("meta"):
        counter = counts.operations(partial(encoder, torch.randn(1, encoder.feat_in, 100 * seconds)))
    ends = [name for name in counter.get_flop_counts() if name.endswith("pre_encode")]
    subsampling = max(sum(counter.get_flop_counts()[name].values()) for name in ends)
    total = counter.get_total_flops()
    frames = -(-100 * seconds // encoder.subsampling_factor)
    beyond = 0
    for layer in range(len(encoder.layers)):
        t = -(-frames // 2 ** encoder.span.depth(layer))
        beyond += 2 * (t - 1) * encoder.d_model * (encoder.d_model + t)  # projected, then multiplied with T queries
    return {"gflops": total / 1e9, "counted_by_t": (total - beyond) / 1e9, "subsampling": subsampling / 1e9}


def count(results: Results, changes: dict[str, object]) -> None:
    measured = {}
    for name, (rung, other) in {**{rung: (rung, {}) for rung in RUNGS}, **BESIDE}.items():
        with torch.device("meta"):
            encoder = build(rung, **{**changes, **other}).eval()
        numbers = {name: round(value, 4) for name, value in operations(encoder).items()}
        measured[name] = {"parameters": counts.parameters(encoder), **numbers}
    results.add("operations", {"seconds": 30}, measured, {})


@torch.inference_mode()
def clock(results: Results, changes: dict[str, object], seconds: int, patience: float) -> None:
    """Measure the processor time for one utterance on one thread. The program calls the rungs alternately."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(1, 80, 100 * seconds)
    calls: dict[str, Callable[[], object]] = {rung: partial(build(rung, **changes).eval(), x) for rung in RUNGS}
    for call in calls.values():
        call()  # warm-up
    took = interleaved(calls, patience, clock=time.thread_time)
    load = round(os.getloadavg()[1], 1)  # average over the last five minutes
    results.add("time", {"seconds": seconds, "threads": 1, "load": load}, in_milliseconds(took), {})
