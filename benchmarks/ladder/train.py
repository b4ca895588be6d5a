"""The training and the test of the small ladder. Every rung has the same program, data, schedule and seed."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.ladder.rungs import RUNGS, SMALL, encoder_settings
from benchmarks.measuring import training
from benchmarks.measuring.recordings import digits
from benchmarks.measuring.results import Results


def train(results: Results, folder: Path, work: Path, changes: dict[str, object], args: argparse.Namespace) -> None:
    """Train the rungs that ``results`` does not have for these steps and seeds, and add them to ``results``."""
    import torch
    from nemo.utils import logging

    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    task = training.Task(digits(folder), work / "tokenizer", args.steps, batch=16)
    training.make_tokenizer(task, args.vocabulary)
    for seed in range(args.seeds):
        key = {"steps": args.steps, "peak_lr": args.peak, "seed": seed}
        for rung in results.missing("trained", key, list(RUNGS)):
            settings = encoder_settings(rung, **{**SMALL, **changes})
            run = training.outcome(training.train(settings, task, args.peak, seed), task.recordings)
            row = {name: run[name] for name in ("loss", "wer", "cpu_seconds", "finite")}
            results.add("trained", key, results.find("trained", key)["measured"] | {rung: row}, {})
            print(f"{rung}, seed {seed}: {row}", flush=True)
