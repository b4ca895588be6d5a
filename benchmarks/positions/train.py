"""The trainings: both encoders with several seeds, at one peak learning rate."""

from __future__ import annotations

import argparse
import json

from benchmarks.measuring import training
from benchmarks.measuring.claims import claim
from benchmarks.positions.encoders import POSITIONS, small_config


def train(args: argparse.Namespace) -> None:
    """Train both encoders with each seed and append a line of results for each training."""
    task, results = training.prepared(args)
    for seed in range(args.seeds):
        for positions in POSITIONS:
            if not claim(results, positions, seed):
                continue
            trained = training.train(small_config(positions), task, args.peak, seed)
            row = {"data": args.name, "positions": positions, "peak_lr": args.peak, "batch": args.batch, "seed": seed}
            row |= training.outcome(trained, task.recordings)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
