"""The page of redundancy: similarities after each block, and what of the paper's words they bear out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean

from benchmarks.measuring.tables import head, line, table
from benchmarks.redundancy.encoders import CONFORMER_NAME, FLAT, UNET

Rows = dict[tuple[str, str, int, str], dict[str, str]]


def read(results: Path) -> tuple[list[str], Rows]:
    """The conditions, and rows by model, weights, block and distance in frames."""
    lines = (results / "similarity.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(each for each in lines if not each.startswith("#"))
    found = {(row["model"], row["weights"], int(row["block"]), row["distance_frames"]): row for row in rows}
    return [each[2:] for each in lines if each.startswith("#")], found


def page(results: Path) -> str:
    conditions, rows = read(results)
    trained = json.loads((results / "training.json").read_text(encoding="utf-8"))
    last = max(block for _, _, block, _ in rows)
    text = [
        "# Temporal redundancy",
        "",
        "Made by `python -m benchmarks.redundancy`; all numbers are in [similarity.csv](similarity.csv). What they",
        "mean is in [docs/redundancy.md](../../../docs/redundancy.md).",
        "",
        "![Mean cosine similarity of two frames after each block, a panel for each distance and a line for each model]"
        "(similarity.png)",
        "",
        head(["encoder", "parameters", "steps", "WER of seen speakers", "of unseen ones", "processor seconds"]),
    ]
    for name, of in trained.items():
        rates = [f"{rate:.1f} %" for rate in of["wer"].values()]
        text.append(line([name, f"{of['parameters']:,}", str(of["steps"]), *rates, str(of["cpu_seconds"])]))
    shown = list(range(last + 1))
    for title, distance in [("the next frame", "1"), ("the frame four further", "4"), ("any two frames", "any")]:
        text += ["", f"Similarity in percent, {title}, after block", ""]
        text.append(head(["encoder", "weights", *map(str, shown)]))
        for name in trained:
            for weights in ("trained", "untrained"):
                found = [rows[name, weights, block, distance] for block in shown]
                text.append(line([name, weights, *map(cell, found)]))
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
    verdicts = [[claim, here, "yes" if agrees else "no"] for claim, here, agrees in claims]
    return ["## Beside the paper", "", *table(["the paper", "here", "agrees"], verdicts).splitlines()]


def cell(row: dict[str, str]) -> str:
    """The similarity in percent, marked inside the U-Net."""
    return f"{100 * float(row['similarity']):.1f}" + ("\\*" if float(row["frame_ms"]) > 40 else "")
