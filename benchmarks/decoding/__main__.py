"""The gain of beam search, a language model and hotwords, and the quality of the confidence, for small models.

    python -m benchmarks.decoding train digits-hybrid DIGITS
    python -m benchmarks.decoding measure digits-hybrid DIGITS
    python -m benchmarks.decoding measure digits-ctc DIGITS --others SPEECH/digits_*.jsonl
    python -m benchmarks.decoding table > benchmarks/results/decoding.md

`train` trains a tokenizer and a model on one CPU thread. `measure` chooses the weights on one half of the data, and
measures on the other half. `table` prints the committed page from all results.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.decoding.page import page
from benchmarks.decoding.train import PLANS, train
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.recordings import Recordings, digits
from benchmarks.measuring.results import RESULTS

OUTPUT = RESULTS / "decoding"


def speechocean(folder: Path) -> Recordings:
    return Recordings([folder / "train.jsonl", folder / "extra.jsonl"], folder / "dev.jsonl", {})


DATA = {"digits": digits, "speechocean": speechocean}


def do_train(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    plan = PLANS[args.name]
    train(plan, DATA[plan.data](args.folder), args.work / args.name)


def do_measure(args: argparse.Namespace) -> None:
    import torch

    from benchmarks.decoding.runs import measure

    torch.set_num_threads(1)
    plan = PLANS[args.name]
    found = measure(plan, DATA[plan.data](args.folder), args.work / args.name / "model.nemo", args.others)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"{args.name}{'-others' if args.others else ''}.json").write_text(json.dumps(found, indent=1) + "\n")


def do_table(args: argparse.Namespace) -> None:
    print(page(args.output), end="")


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.decoding", __doc__)
    commands = parser.add_subparsers(required=True)
    for name, do in (("train", do_train), ("measure", do_measure)):
        command = commands.add_parser(name)
        command.add_argument("name", choices=PLANS)
        command.add_argument("folder", type=Path, help="folder with the manifests")
        command.add_argument("--work", type=Path, default=Path("build/decoding"), help="folder of the models")
        command.add_argument("--output", type=Path, default=OUTPUT, help="folder of the results")
        command.set_defaults(do=do)
        if do is do_measure:
            command.add_argument("--others", nargs="*", type=Path, default=[], help="manifests of other recordings")
    tables = commands.add_parser("table")
    tables.add_argument("--output", type=Path, default=OUTPUT, help="folder of the results")
    tables.set_defaults(do=do_table)
    args = parser.parse_args(argv)
    args.do(args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
