"""How alike neighbouring frames are after each block of Conformer, and of Squeezeformer with and without its U-Net.

    python benchmarks/redundancy.py DIGITS

Trains the three alike, as NeMo's CTC models, on one thread; measures them with `nemo-squeezeformer redundancy`, beside
the same networks before training; writes the figure, its numbers and the page to `benchmarks/results/redundancy`. A
model that lies in `build/redundancy` is not trained again. `--page` writes the page alone, from the numbers there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from side_by_side import CONFORMER, SHARED, SQUEEZEFORMER, model_config, one_thread_trainer, word_error_rates

RESULTS = Path("benchmarks/results/redundancy")
CONFORMER_NAME, FLAT, UNET = "Conformer", "Squeezeformer without U-Net", "Squeezeformer"
# Of one depth and width; the U-Net where the published sizes have it.
ENCODERS: dict[str, dict[str, Any]] = {
    CONFORMER_NAME: CONFORMER | {"d_model": 64, "subsampling": "striding"},
    FLAT: SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": None},
    UNET: SQUEEZEFORMER | {"d_model": 64, "time_reduce_idx": 3, "time_recovery_idx": 7},
}
ALIKE = SHARED | {"n_layers": 8, "subsampling_factor": 4, "conv_kernel_size": 31}
Rows = dict[tuple[str, str, int, str], dict[str, str]]
MEASURED = ("connected_test_seen.jsonl", "connected_test.jsonl", "connected_dev.jsonl")


def train(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Writes the model to the work folder, and gives what is said of its training."""
    import lightning.pytorch as lightning
    from nemo.collections.asr.models import EncDecCTCModelBPE

    from nemo_squeezeformer.commands.tokenizer import train_tokenizer

    digits = args.digits
    settings = argparse.Namespace(
        train=[digits / "connected_train.jsonl", digits / "single_train.jsonl"],
        dev=digits / "connected_dev.jsonl",
        tokenizer=args.work / "tokenizer",
        batch=args.batch,
        steps=args.steps,
    )
    if not settings.tokenizer.exists():
        train_tokenizer([str(path) for path in settings.train], 27, str(settings.tokenizer))
    config = model_config(ALIKE | ENCODERS[name] | args.encoder, settings, args.peak)
    lightning.seed_everything(0)
    trainer = one_thread_trainer(args.steps)
    model = EncDecCTCModelBPE(cfg=config, trainer=trainer)
    began = time.process_time()
    trainer.fit(model)
    seconds = time.process_time() - began
    wer = word_error_rates(
        model, {"seen": digits / "connected_test_seen.jsonl", "unseen": digits / "connected_test.jsonl"}
    )
    model.save_to(str(args.work / f"{name}.nemo"))
    return {
        "parameters": sum(weight.numel() for weight in model.encoder.parameters()),
        "steps": args.steps,
        "peak_lr": args.peak,
        "wer": {which: round(rate, 1) for which, rate in wer.items()},
        "cpu_seconds": round(seconds),
    }


def read(results: Path) -> tuple[list[str], Rows]:
    """The conditions, and rows by model, weights, block and distance in frames."""
    lines = (results / "similarity.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    found = {(row["model"], row["weights"], int(row["block"]), row["distance_frames"]): row for row in rows}
    return [line[2:] for line in lines if line.startswith("#")], found


def page(results: Path) -> str:
    conditions, rows = read(results)
    trained = json.loads((results / "training.json").read_text(encoding="utf-8"))
    last = max(block for _, _, block, _ in rows)
    text = [
        "# Temporal redundancy",
        "",
        "Made by `benchmarks/redundancy.py`; all numbers are in [similarity.csv](similarity.csv). What they mean is in",
        "[docs/redundancy.md](../../../docs/redundancy.md).",
        "",
        "![Mean cosine similarity of two frames after each block, a panel for each distance and a line for each model]"
        "(similarity.png)",
        "",
        "| encoder | parameters | steps | WER of seen speakers | of unseen ones | processor seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in trained.items():
        rates = " | ".join(f"{rate:.1f} %" for rate in of["wer"].values())
        text.append(f"| {name} | {of['parameters']:,} | {of['steps']} | {rates} | {of['cpu_seconds']} |")
    shown = list(range(last + 1))
    for title, distance in [("the next frame", "1"), ("the frame four further", "4"), ("any two frames", "any")]:
        text += ["", f"Similarity in percent, {title}, after block", ""]
        text += [f"| encoder | weights | {' | '.join(map(str, shown))} |", "|---|---|" + "---|" * len(shown)]
        for name in trained:
            for weights in ("trained", "untrained"):
                found = [rows[name, weights, block, distance] for block in shown]
                text.append(f"| {name} | {weights} | {' | '.join(map(cell, found))} |")
    text += ["", "\\* at 80 ms a frame; others at 40 ms. Untrained: the same network with new random weights.", ""]
    text += beside_the_paper(rows)
    both = {
        weights: ", ".join(cell(rows[CONFORMER_NAME, weights, last, distance]) for distance in ("1", "4", "any"))
        for weights in ("trained", "untrained")
    }
    text += [
        "",
        f"After its last block Conformer has {both['trained']} % (next frame, four apart, any two frames), and with",
        f"random weights {both['untrained']} %: a high figure by itself is no sign of training.",
        f"Inside the U-Net any two frames of an utterance are {inside(rows, 'any'):.1f} % alike: the nearer to 100 %,",
        "the more its branch adds the same to every frame, and the less its neighbours tell of redundancy.",
        "",
        "Again: trainings are seeded, on one thread. On the same processor and versions similarities come out within",
        "0.1 points and error rates to the digit; elsewhere rounding leads the trainings apart as another seed would.",
    ]
    return "\n".join([*text, "", "## Conditions", "", *(f"- {condition}" for condition in conditions), ""])


def branch(rows: Rows) -> list[int]:
    """The blocks inside the U-Net."""
    return sorted({block for _, _, block, _ in rows if float(rows[UNET, "trained", block, "1"]["frame_ms"]) > 40})


def inside(rows: Rows, distance: str, name: str = UNET) -> float:
    """The mean similarity of a trained encoder in those blocks, in percent."""
    return mean(100 * float(rows[name, "trained", block, distance]["similarity"]) for block in branch(rows))


def beside_the_paper(rows: Rows) -> list[str]:
    """A table of what the paper says of its own models, and what these show."""
    last = max(block for _, _, block, _ in rows)

    def of(name: str, block: int, distance: int) -> float:
        return 100 * float(rows[name, "trained", block, str(distance)]["similarity"])

    near, far, first = of(CONFORMER_NAME, last, 1), of(CONFORMER_NAME, last, 4), of(CONFORMER_NAME, 1, 1)
    unet, frames, time = inside(rows, "1"), inside(rows, "1", FLAT), inside(rows, "2", FLAT)
    blocks = branch(rows)
    where = f"blocks {blocks[0]} to {blocks[-1]}"
    claims = [
        ("Conformer: the next frame is about 95 % alike", f"{near:.1f} % after the last block", abs(near - 95) <= 3),
        ("Conformer: four frames apart, above 80 %", f"{far:.1f} % after the last block", far > 80),
        (
            "Conformer: it grows with depth",
            f"next frame: {first:.1f} % after block 1, {near:.1f} % at the end",
            near > first,
        ),
        (
            "The U-Net holds it back",
            f"next frame in {where}: {unet:.1f} % with it, {frames:.1f} % without",
            unet < frames,
        ),
        ("the same at equal distance in time", f"80 ms apart: {unet:.1f} % with it, {time:.1f} % without", unet < time),
    ]
    table = [f"| {claim} | {here} | {'yes' if agrees else 'no'} |" for claim, here, agrees in claims]
    return ["## Beside the paper", "", "| the paper | here | agrees |", "|---|---|---|", *table]


def cell(row: dict[str, str]) -> str:
    """The similarity in percent, marked inside the U-Net."""
    return f"{100 * float(row['similarity']):.1f}" + ("\\*" if float(row["frame_ms"]) > 40 else "")


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
        sys.exit("the models could not be measured")
    (args.output / "training.json").write_text(json.dumps(trained, indent=2) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, nargs="?", help="a folder with the manifests of connected digits")
    parser.add_argument("--page", action="store_true", help="neither train nor measure")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak", type=float, default=1.5e-3)
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--encoder", type=json.loads, default={}, metavar="JSON", help="changes to all three encoders")
    parser.add_argument("--work", type=Path, default=Path("build/redundancy"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if not args.page and not args.digits:
        parser.error("give the folder of the digits, or --page")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if not args.page:
        everything(args)
    (args.output / "README.md").write_text(page(args.output), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
