"""The trainings: every encoder at every peak learning rate, then with further seeds at its best rate."""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.measuring import training
from benchmarks.measuring.claims import claim, done
from benchmarks.measuring.small_encoders import SMALL_ENCODERS
from benchmarks.side_by_side.runs import best_peak


def train(args: argparse.Namespace) -> None:
    task, results = training.prepared(args)

    def do(architecture: str, peak: float, seed: int) -> None:
        if claim(results, architecture, peak, seed):
            trained = training.train(SMALL_ENCODERS[architecture], task, peak, seed)
            row = {"data": args.name, "architecture": architecture, "peak_lr": peak, "seed": seed}
            row |= training.outcome(trained, task.recordings)
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

    for peak in args.peaks:
        for architecture in args.architectures:
            do(architecture, peak, 0)
    for architecture in args.architectures:
        while (peak := best_peak(done(results), architecture, args.peaks)) is None:
            time.sleep(5)  # another process is still training this encoder
        for seed in range(1, args.seeds):
            do(architecture, peak, seed)
