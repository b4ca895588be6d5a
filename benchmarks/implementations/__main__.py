"""The gain of each fast implementation of the core: the encoder with all implementations, and without one of them.

    export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    python -m benchmarks.implementations > benchmarks/results/implementations.md

The program uses one thread, float32 and size s. It measures the calls with and without an implementation alternately.
It does not need NeMo. It takes about fifteen minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.implementations.cases import CASES, NOTHING, SIZES, WORK, Case, Without, Work
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import ROOT, allocator, commit, processor
from benchmarks.measuring.tables import table
from benchmarks.measuring.timing import interleaved
from nemo_squeezeformer.analysis.counting import Alive
from nemo_squeezeformer.core import SqueezeformerEncoder

CORE = ROOT / "nemo_squeezeformer" / "core"


class Gain(NamedTuple):
    """The factors by which time and memory of a work grow without an implementation."""

    case: Case
    work: str
    time: float
    memory: float


def build(work: Work, size: str, without: Without) -> SqueezeformerEncoder:
    torch.manual_seed(0)
    with without():
        encoder = SqueezeformerEncoder(80, **SIZES[size] | work.settings).train(work.trains)
        return encoder.optimize_for_inference() if work.optimised else encoder


def prepared(case: Case | None, work: Work, size: str) -> Callable[[], object]:
    """Return the work of an encoder without the implementation of ``case``.

    If ``case`` is None, the encoder uses all implementations.
    """
    without = NOTHING if case is None else case.without
    encoder = build(work, size, without if case is not None and case.when_built else NOTHING)
    call = work.run(encoder, work.seconds)
    return call if case is None or case.when_built else partial(run_without, without, call)


def run_without(without: Without, call: Callable[[], object]) -> None:
    with without():
        call()


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the largest sum of bytes of all tensors that exist at the same time while ``call`` runs."""
    with Alive() as alive:
        call()
    return alive.most


def measure(work: Work, size: str, patience: float) -> list[Gain]:
    """Measure the gains of all implementations that ``work`` uses."""
    cases = [case for case in CASES if work.name in case.work]
    calls = {"": prepared(None, work, size)} | {case.name: prepared(case, work, size) for case in cases}
    for call in calls.values():  # warm-up: libraries are loaded and weights are packed in the first call
        call()
    memory = {name: peak_bytes(call) for name, call in calls.items()}
    took = {name: median(t) for name, t in interleaved(calls, patience, clock=time.thread_time).items()}
    return [Gain(case, work.name, took[case.name] / took[""], memory[case.name] / memory[""]) for case in cases]


def lines(files: Sequence[str], folder: Path = CORE) -> int:
    """Return the number of lines in the files, with docstrings and comments, without empty lines."""
    return sum(
        bool(line.strip()) for file in files for line in (folder / file).read_text(encoding="utf-8").splitlines()
    )


def gains_table(gains: Sequence[Gain]) -> str:
    names = ["implementation", "lines of code", "work", "time without it", "memory without it"]
    rows = []
    for case in CASES:
        files = ", ".join(f"`{file}`" for file in case.files)
        named = [f"{case.name} ({files})", str(lines(case.files))]
        for gain in (gain for gain in gains if gain.case is case):
            rows.append([*named, gain.work, f"x {gain.time:.2f}", f"x {gain.memory:.2f}"])
            named = ["", ""]
    return table(names, rows)


def page(gains: Sequence[Gain], conditions: str) -> str:
    return "\n".join(
        [
            "# What each implementation gains",
            "",
            "`python -m benchmarks.implementations` makes this page. For each row, the program disables one fast\n"
            "implementation, or several fast implementations if the row names them together. The reference\n"
            "implementation or the next fast implementation replaces a disabled implementation. The last two columns\n"
            "show the factors by which time and memory of the encoder grow. Memory is the largest sum of all tensors\n"
            "that exist at the same time, without weights and input. An empty cell has the value of the cell above it.",
            "",
            conditions,
            "",
            gains_table(gains),
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.implementations", __doc__)
    parser.add_argument("--size", choices=list(SIZES), default="s")
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK), metavar="WORK")
    parser.add_argument("--patience", type=float, default=8.0, help="seconds for each call")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    gains = [gain for name in args.work for gain in measure(WORK[name], args.size, args.patience)]
    made_with = [processor(), "one thread", f"torch {torch.__version__}", "float32", f"size {args.size}", *allocator()]
    print(page(gains, f"{', '.join(made_with)}; commit {commit()}."), end="")


if __name__ == "__main__":
    main()
