"""How well small encoders learn: Squeezeformer, Conformer and FastConformer, and changes of the training.

    python -m benchmarks.learning.data SPEECH DIGITS
    python -m benchmarks.learning run speechocean
    python -m benchmarks.learning table > benchmarks/results/learning/README.md

`run` trains what is missing in the file of results, seed by seed. Several processes may share the work. A training that
was stopped continues after its last validation when `run` starts again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from benchmarks.learning.changes import CHANGES, UNCHANGED
from benchmarks.learning.data import DATA, WORK, recordings
from benchmarks.learning.encoders import ENCODERS
from benchmarks.measuring.claims import done
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.results import RESULTS

OUTPUT = RESULTS / "learning"


def run(args: argparse.Namespace) -> None:
    """Train what is missing, and append a line of JSON for each training."""
    import torch
    from nemo.utils import logging

    from benchmarks.learning.train import PARTS, Run, train
    from benchmarks.measuring import training

    parts = PARTS * max(CHANGES[change].fewer_steps for change in args.changes)
    if args.steps % parts:
        raise SystemExit(f"--steps {args.steps}: give a multiple of {parts}, so that the last step is validated")
    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    data = DATA[args.data]
    found = recordings(data, args.work)
    tokenizer = args.work / f"tokenizer-{data.folder}-{data.vocabulary}"
    training.make_tokenizer(training.Task(found, tokenizer, 0, 0), data.vocabulary)
    results = args.output / f"{args.data}.jsonl"
    args.output.mkdir(parents=True, exist_ok=True)
    for seed, change, encoder, peak in product(args.seeds, args.changes, args.encoders, args.peaks):
        each = Run(encoder, change, peak, seed, args.steps, args.batch)
        checkpoint = args.work / f"{args.data}-{each.name}.ckpt"
        with alone(checkpoint.with_suffix(".lock")) as locked:
            if locked and not any(each.same(row) for row in done(results)):
                row = train(each, found, tokenizer, checkpoint)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Lock a file, and yield False if another process has locked it. The lock ends with the process."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def show(args: argparse.Namespace) -> None:
    from benchmarks.learning.page import page

    print(page(args.results), end="")


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.learning", __doc__)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and evaluate what is missing")
    runs.add_argument("data", choices=DATA)
    runs.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    runs.add_argument("--changes", nargs="+", choices=CHANGES, default=[UNCHANGED])
    runs.add_argument("--peaks", nargs="+", type=float, default=[1.5e-3])
    runs.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    runs.add_argument("--steps", type=int, default=2000)
    runs.add_argument("--batch", type=int, default=16)
    runs.add_argument("--work", type=Path, default=WORK)
    runs.add_argument("--output", type=Path, default=OUTPUT)
    runs.set_defaults(do=run)
    tables = commands.add_parser("table", help="print the page")
    tables.add_argument("results", type=Path, nargs="?", default=OUTPUT)
    tables.set_defaults(do=show)
    args = parser.parse_args(argv)
    args.do(args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
