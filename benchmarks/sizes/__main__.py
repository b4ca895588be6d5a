"""The six published sizes: parameters, operations, time and memory of our encoders, and published word error rates.

    export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    python -m benchmarks.sizes

The program writes results/sizes.json and results/sizes.md. It takes ten minutes on one core and does not need NeMo.
`table` prints the page, and `readme` prints the table that docs/benchmarks.md quotes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import counts
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import allocator, commit, processor
from benchmarks.measuring.memory import peak_in_a_process
from benchmarks.measuring.results import RESULTS
from benchmarks.measuring.timing import interleaved, quartiles
from benchmarks.sizes.page import page, quoted
from nemo_squeezeformer import core
from nemo_squeezeformer.analysis.sizes import PUBLISHED, sizes

OUTPUT = RESULTS / "sizes.json"
SECONDS = (5, 15, 30, 60)
PROCESSES = 3  # number of measurements of memory, because the heap of one process may be fragmented


def build(name: str, **settings: Any) -> core.SqueezeformerEncoder:
    torch.manual_seed(0)
    return core.SqueezeformerEncoder(feat_in=80, **(sizes()[name].encoder | settings)).eval()


def gflops(name: str, seconds: int, **settings: Any) -> float:
    """Return the operations for one utterance, in 10^9."""
    with torch.device("meta"):
        return round(counts.gflops(partial(build(name, **settings), torch.empty(1, 80, 100 * seconds))), 5)


@torch.inference_mode()
def infer(encoder: core.SqueezeformerEncoder, features: Tensor) -> None:
    encoder(features)


def prepared(encoder: core.SqueezeformerEncoder, seconds: int) -> partial[None]:
    """Make a short warm-up call and return the call to measure."""
    infer(encoder, torch.randn(1, 80, 200))
    return partial(infer, encoder, torch.randn(1, 80, 100 * seconds))


def measure(names: Sequence[str], lengths: Sequence[int], patience: float) -> dict[str, Any]:
    """Measure all sizes and return the data of the page.

    Each size has ``memory_mib`` and the quartiles ``ms``, by length in seconds.
    """
    torch.set_num_threads(1)
    encoders = {name: build(name) for name in names}
    rows: dict[str, Any] = {name: {"ms": {}, "memory_mib": {}} for name in names}
    for name in names:  # memory is measured before other threads start, because a fork has only one thread
        rows[name]["parameters"] = counts.parameters(encoders[name])
        rows[name]["gflops"] = {str(seconds): gflops(name, seconds) for seconds in lengths}
        rows[name]["gflops_without_unet"] = {
            str(seconds): gflops(name, seconds, time_reduce_idx=None) for seconds in lengths
        }
        for seconds in lengths:
            peaks = [peak_in_a_process(partial(prepared, encoders[name], seconds), threads=1) for _ in range(PROCESSES)]
            rows[name]["memory_mib"][str(seconds)] = round(median(peaks), 1)
        print(name, rows[name]["memory_mib"], flush=True)
    for seconds in lengths:
        calls = {name: prepared(encoders[name], seconds) for name in names}
        for name, took in interleaved(calls, patience, most=15, clock=time.thread_time).items():
            rows[name]["ms"][str(seconds)] = [round(1e3 * value, 1) for value in quartiles(took)]
        print(seconds, {name: row["ms"][str(seconds)][1] for name, row in rows.items()}, flush=True)
    made_with = [processor(), "one thread", f"torch {torch.__version__}", "float32", "batch 1", *allocator()]
    return {"conditions": f"{', '.join(made_with)}; commit {commit()}", "sizes": rows}


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.sizes", __doc__)
    parser.add_argument("what", nargs="?", choices=["measure", "table", "readme"], default="measure")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="the .json file; the page is written to the same folder"
    )
    parser.add_argument("--sizes", nargs="+", choices=list(sizes()), default=list(PUBLISHED))
    parser.add_argument("--seconds", nargs="+", type=int, default=list(SECONDS))
    parser.add_argument("--patience", type=float, default=4.0, help="seconds for each size at each length")
    args = parser.parse_args(argv)
    if args.what == "measure":
        made = measure(args.sizes, args.seconds, args.patience)
        args.output.write_text(json.dumps(made, indent=1) + "\n")
        args.output.with_suffix(".md").write_text(page(made))
    else:
        print({"table": page, "readme": quoted}[args.what](json.loads(args.output.read_text())), end="")


if __name__ == "__main__":
    main()
