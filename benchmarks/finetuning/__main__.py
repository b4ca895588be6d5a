"""Fine-tuning with a new vocabulary against training from random weights, at the same number of steps.

    python -m benchmarks.finetuning run digits-to-speechocean --from DIGITS_MODEL.nemo --train train.jsonl \\
        --dev dev.jsonl
    python -m benchmarks.finetuning run demo-to-digits --from build/demo/squeezeformer.nemo --train train.jsonl \\
        --dev dev.jsonl --vocabulary 27
    python -m benchmarks.finetuning table benchmarks/results/finetuning > benchmarks/results/finetuning/README.md

`run` trains the network of the file in both ways with each seed: from the weights of the file, as `nemo-squeezeformer
train --from` does, and from random weights with each peak learning rate of `--peaks`. Both ways use one thread, the
same new tokenizer, the same batches and the same number of steps. A run is one line of JSON. Several processes may
share the work, and a stopped program goes on with the next training. To repeat the trainings of a stopped process,
delete its files in the folder `NAME.claims` beside the results.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.finetuning.page import page
from benchmarks.finetuning.train import train
from benchmarks.measuring.command_line import add_trainings, command_line


def show(args: argparse.Namespace) -> None:
    print(page(args.results), end="")


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.finetuning", __doc__)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train in both ways")
    add_trainings(runs, "finetuning", vocabulary=128, steps=400, seeds=2)
    runs.add_argument("--from", dest="start", type=Path, required=True, help="the .nemo file of a trained model")
    runs.add_argument("--rate", type=float, help="peak learning rate of fine-tuning (default: the rate of --from)")
    runs.add_argument(
        "--peaks", nargs="+", type=float, default=[1e-3, 2e-3], help="peaks of training from random weights"
    )
    runs.set_defaults(do=train)
    tables = commands.add_parser("table", help="print the page")
    tables.add_argument("results", type=Path)
    tables.set_defaults(do=show)
    args = parser.parse_args(argv)
    args.do(args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
