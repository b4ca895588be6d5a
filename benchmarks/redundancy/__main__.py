"""The similarity of neighboring frames after each block of Conformer and of Squeezeformer with and without its U-Net.

    python -m benchmarks.redundancy DIGITS

The program trains the three encoders under equal conditions, as NeMo's CTC models, on one thread. It measures them with
`nemo-squeezeformer redundancy`, together with the same networks with random weights. It writes the figure, the numbers
and the page to `benchmarks/results/redundancy`. A model that exists in `build/redundancy` is not trained again. With
`--page` the program only writes the page, from the existing numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import training
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.recordings import digits
from benchmarks.measuring.results import RESULTS
from benchmarks.redundancy.encoders import ALIKE, ENCODERS
from benchmarks.redundancy.page import page

MEASURED = ("connected_test_seen.jsonl", "connected_test.jsonl", "connected_dev.jsonl")


def train(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one encoder, save the model in the work folder, and return the record of the training."""
    from benchmarks.measuring.counts import parameters

    task = training.Task(digits(args.digits), args.work / "tokenizer", args.steps, args.batch)
    training.make_tokenizer(task, 27)
    trained = training.train(ALIKE | ENCODERS[name] | args.encoder, task, args.peak, seed=0)
    wer = training.word_error_rates(trained.model, task.recordings.tests)
    trained.model.save_to(str(args.work / f"{name}.nemo"))
    return {
        "parameters": parameters(trained.model.encoder),
        "steps": args.steps,
        "peak_lr": args.peak,
        "wer": {which: round(rate, 1) for which, rate in wer.items()},
        "cpu_seconds": round(trained.cpu_seconds),
    }


def everything(args: argparse.Namespace) -> None:
    import torch
    from nemo.utils import logging

    from nemo_squeezeformer.__main__ import main as command

    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    for folder in (args.work, args.output):
        folder.mkdir(parents=True, exist_ok=True)
    records = args.work / "training.json"
    trained = json.loads(records.read_text()) if records.exists() else {}
    for name in ENCODERS:
        if not (args.work / f"{name}.nemo").exists():
            trained[name] = train(name, args)
            print(name, trained[name], flush=True)
            records.write_text(json.dumps(trained, indent=2) + "\n")
    models = [str(args.work / f"{name}.nemo") for name in ENCODERS]
    data = [str(args.digits / name) for name in MEASURED]
    picture = str(args.output / "similarity.png")
    options = ["--untrained", "--force", "--device", "cpu", "--utterances", str(args.utterances)]
    if command(["redundancy", *models, "--data", *data, "--output", picture, *options]):
        sys.exit("`nemo-squeezeformer redundancy` failed, see its message above.")
    (args.output / "training.json").write_text(json.dumps(trained, indent=2) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line("benchmarks.redundancy", __doc__)
    parser.add_argument("digits", type=Path, nargs="?", help="a folder with the manifests of connected digits")
    parser.add_argument("--page", action="store_true", help="only write the page, without training and measuring")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak", type=float, default=1.5e-3)
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--encoder", type=json.loads, default={}, metavar="JSON", help="changes to all three encoders")
    parser.add_argument("--work", type=Path, default=Path("build/redundancy"))
    parser.add_argument("--output", type=Path, default=RESULTS / "redundancy")
    args = parser.parse_args(arguments)
    if not args.page and not args.digits:
        parser.error("the folder of the digits is missing: give the folder, or --page")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if not args.page:
        everything(args)
    (args.output / "README.md").write_text(page(args.output), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
