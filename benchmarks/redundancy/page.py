"""The page of temporal redundancy: similarities after each block, and a comparison with the claims of the paper."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean

from benchmarks.measuring.tables import head, line, table
from benchmarks.redundancy.encoders import CONFORMER_NAME, FLAT, UNET

Rows = dict[tuple[str, str, int, str], dict[str, str]]


def read(results: Path) -> tuple[list[str], Rows]:
    """Return the conditions, and the rows by model, weights, block and distance in frames."""
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
        "Made by `python -m benchmarks.redundancy`. All numbers are in [similarity.csv](similarity.csv).",
        "[How it works](../../../docs/how-it-works.md#measure-the-similarity-of-frames-in-your-models) explains",
        "what they mean.",
        "",
        "![Mean cosine similarity of two frames after each block. Each panel shows one distance, each line one model.]"
        "(similarity.png)",
        "",
        head(["encoder", "parameters", "steps", "WER of seen speakers", "WER of unseen speakers", "processor seconds"]),
    ]
    for name, of in trained.items():
        rates = [f"{rate:.1f} %" for rate in of["wer"].values()]
        text.append(line([name, f"{of['parameters']:,}", str(of["steps"]), *rates, str(of["cpu_seconds"])]))
    shown = list(range(last + 1))
    for title, distance in [("neighboring frames", "1"), ("frames four apart", "4"), ("any two frames", "any")]:
        text += ["", f"Similarity of {title} after each block, in percent:", ""]
        text.append(head(["encoder", "weights", *map(str, shown)]))
        for name in trained:
            for weights in ("trained", "untrained"):
                found = [rows[name, weights, block, distance] for block in shown]
                text.append(line([name, weights, *map(cell, found)]))
    text += [
        "",
        "\\* Inside the U-Net, where a frame lasts 80 ms. All other frames last 40 ms.\n"
        '"untrained" is the same network with random weights.',
        "",
    ]
    text += beside_the_paper(rows)
    both = {
        weights: ", ".join(cell(rows[CONFORMER_NAME, weights, last, distance]) for distance in ("1", "4", "any"))
        for weights in ("trained", "untrained")
    }
    text += [
        "",
        f"After the last block of the trained Conformer, the similarities are {both['trained']} % (next frame,\n"
        "frames four apart, any two frames).",
        f"With random weights they are {both['untrained']} %.\n"
        "A high similarity alone does not show an effect of training.\n",
        f"Inside the U-Net, any two frames of an utterance have a similarity of {inside(rows, 'any'):.1f} %.\n"
        "Near 100 %, the branch adds nearly the same vector to every frame.",
        "The similarity of neighboring frames then says little about redundancy.",
        "",
        "Repeated runs: the trainings are seeded and use one thread. On the same processor and with the same\n"
        "versions, similarities differ by at most 0.1 points, and error rates are identical.",
        "With another processor or other versions, rounding changes the results as much as another seed does.",
    ]
    return "\n".join([*text, "", "## Conditions", "", *(f"- {condition}" for condition in conditions), ""])


def branch(rows: Rows) -> list[int]:
    """Return the blocks inside the U-Net."""
    return sorted({block for _, _, block, _ in rows if float(rows[UNET, "trained", block, "1"]["frame_ms"]) > 40})


def inside(rows: Rows, distance: str, name: str = UNET) -> float:
    """Return the mean similarity of a trained encoder in the blocks inside the U-Net, in percent.

    Without a U-Net, the encoder is measured in the same blocks.
    """
    return mean(100 * float(rows[name, "trained", block, distance]["similarity"]) for block in branch(rows))


def beside_the_paper(rows: Rows) -> list[str]:
    """Return a table with the paper's claims about its models, and the results of the models here."""
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
    """Return the similarity in percent, with an asterisk inside the U-Net."""
    return f"{100 * float(row['similarity']):.1f}" + ("\\*" if float(row["frame_ms"]) > 40 else "")
