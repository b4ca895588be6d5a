"""The small ladder, trained and tested: every rung by the same program, data, schedule and seed."""

from __future__ import annotations

import argparse
from pathlib import Path

import side_by_side
from ladder_rungs import RUNGS, SMALL, encoder_settings
from speed_results import Results


def train(results: Results, digits: Path, work: Path, changes: dict[str, object], args: argparse.Namespace) -> None:
    """Adds losses and word error rates of what has not been trained for so many steps with that seed yet."""
    import torch
    from nemo.utils import logging

    from nemo_squeezeformer.commands.tokenizer import train_tokenizer

    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    given = argparse.Namespace(
        name="digits",
        train=[digits / "connected_train.jsonl", digits / "single_train.jsonl"],
        dev=digits / "connected_dev.jsonl",
        test=[("seen", digits / "connected_test_seen.jsonl"), ("unseen", digits / "connected_test.jsonl")],
        tokenizer=work / "tokenizer",
        batch=16,
        steps=args.steps,
    )
    if not (given.tokenizer / "tokenizer.model").exists():
        train_tokenizer([str(path) for path in given.train], args.vocabulary, str(given.tokenizer))
    for seed in range(args.seeds):
        key = {"steps": args.steps, "peak_lr": args.peak, "seed": seed}
        for rung in results.missing("trained", key, list(RUNGS)):
            settings = encoder_settings(rung, **{**SMALL, **changes})
            run = side_by_side.run_once(given, rung, args.peak, seed, settings)
            row = {name: run[name] for name in ("loss", "wer", "cpu_seconds", "finite")}
            results.add("trained", key, results.find("trained", key)["measured"] | {rung: row}, {})
            print(f"{rung}, seed {seed}: {row}", flush=True)
