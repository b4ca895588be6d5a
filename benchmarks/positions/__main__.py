"""Rotary positions compared with relative positions: word error rates at equal steps, time and memory.

    python -m benchmarks.positions run digits --train train.jsonl --dev dev.jsonl --test unseen=test.jsonl
    python -m benchmarks.positions time
    python -m benchmarks.positions table > benchmarks/results/positions/README.md

`run` trains a small encoder with each kind of positions and several seeds, through NeMo's CTC model, on one thread. The
two trainings of a seed see the same recordings in the same order. Several processes may share the work: each process
claims a training before the training starts. To repeat the trainings of a stopped process, delete the files of these
trainings in the folder `NAME.claims` beside the results.

`time` measures the encoder of size s in turns, on one thread. Run it on a machine without other work. With NeMo 2.7.3,
it also measures NeMo's Squeezeformer. `table` prints the committed page from the results of both commands.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.measuring.command_line import add_trainings, command_line
from benchmarks.measuring.results import RESULTS
from benchmarks.positions.page import page
from benchmarks.positions.train import train

OUTPUT = RESULTS / "positions"


def measure(args: argparse.Namespace) -> None:
    from benchmarks.positions import time  # imports torch, which reads OMP_NUM_THREADS when it is imported

    time.measure(args)


def show(args: argparse.Namespace) -> None:
    print(page(args.results), end="")


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.positions", __doc__)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and evaluate the encoders")
    add_trainings(runs, "positions", vocabulary=32, steps=1200, seeds=3)
    runs.add_argument("--peak", type=float, default=1.5e-3)
    runs.set_defaults(do=train)
    times = commands.add_parser("time", help="measure time and memory")
    times.add_argument("--quick", action="store_true", help="measure a tiny encoder, to try the program")
    times.add_argument("--output", type=Path, default=OUTPUT)
    times.set_defaults(do=measure)
    tables = commands.add_parser("table", help="print the page")
    tables.add_argument("results", nargs="?", type=Path, default=OUTPUT)
    tables.set_defaults(do=show)
    args = parser.parse_args(argv)
    args.do(args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
