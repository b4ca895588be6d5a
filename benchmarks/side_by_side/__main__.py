"""Squeezeformer, Conformer and FastConformer with equal parameters, data and steps: word error rate, time and FLOPs.

    python -m benchmarks.side_by_side run digits --train train.jsonl --dev dev.jsonl --test test=test.jsonl
    python -m benchmarks.side_by_side time
    python -m benchmarks.side_by_side table benchmarks/results/side_by_side > benchmarks/results/side_by_side/README.md

`run` trains every encoder at every peak learning rate. Then it trains each encoder with further seeds at the peak that
is best on the dev set. All trainings use NeMo's CTC model and one thread.

Several processes may share the work: each process claims a training before it starts. To repeat the trainings of a
stopped process, delete its files in the folder `DATA.claims` beside the results.

`time` measures training steps of all encoders in turns. Run it on a machine without other work. `table` prints the
committed page from the results of both commands.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.measuring.command_line import add_trainings, command_line
from benchmarks.measuring.results import RESULTS
from benchmarks.measuring.small_encoders import SMALL_ENCODERS
from benchmarks.side_by_side.page import page
from benchmarks.side_by_side.train import train

OUTPUT = RESULTS / "side_by_side"


def measure(args: argparse.Namespace) -> None:
    from benchmarks.side_by_side import time  # imports torch, which reads OMP_NUM_THREADS when it is imported

    time.measure(args)


def show(args: argparse.Namespace) -> None:
    print(page(args.results), end="")


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.side_by_side", __doc__)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and evaluate the encoders")
    add_trainings(runs, "side_by_side", vocabulary=32, steps=800, seeds=2)
    runs.add_argument("--peaks", nargs="+", type=float, default=[5e-4, 1.5e-3, 4.5e-3])
    runs.add_argument("--architectures", nargs="+", choices=SMALL_ENCODERS, default=list(SMALL_ENCODERS))
    runs.set_defaults(do=train)
    times = commands.add_parser("time", help="measure the time of training steps")
    times.add_argument("--repeats", type=int, default=15)
    times.add_argument("--output", type=Path, default=OUTPUT)
    times.set_defaults(do=measure)
    tables = commands.add_parser("table", help="print the page")
    tables.add_argument("results", type=Path)
    tables.set_defaults(do=show)
    args = parser.parse_args(argv)
    args.do(args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
