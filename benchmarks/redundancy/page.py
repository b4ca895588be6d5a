"""The page of temporal redundancy: similarities after each block, and a comparison with the claims of the paper."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean

from benchmarks.measuring.tables import head, line, table
from benchmarks.redundancy.encoders import CONFORMER_NAME, FLAT, UNET

TRAINED = ["encoder", "parameters", "training steps", "WER, seen speakers", "WER, unseen speaker"]
TITLES = {"1": "neighboring frames", "4": "frames at a distance of four frames", "any": "any two frames"}
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
        "`python -m benchmarks.redundancy` makes this page. All numbers are in [similarity.csv](similarity.csv).",
        "[How it works](../../../docs/how-it-works.md#measure-the-similarity-of-frames-in-your-models) explains",
        "the numbers.",
        "",
        "![Mean cosine similarity of two frames after each block. Each panel shows one distance, each line one model.]"
        "(similarity.png)",
        "",
        "The table shows the trained encoders.",
        "",
        head([*TRAINED, "processor seconds"]),
    ]
    for name, of in trained.items():
        rates = [f"{rate:.1f} %" for rate in of["wer"].values()]
        text.append(line([name, f"{of['parameters']:,}", str(of["steps"]), *rates, str(of["cpu_seconds"])]))
    shown = list(range(last + 1))
    for distance, title in TITLES.items():
        text += ["", f"The table shows the similarity of {title} after each block, in percent.", ""]
        text.append(head(["encoder", "weights", *(f"block {block}" for block in shown)]))
        for name in trained:
            for weights in ("trained", "untrained"):
                found = [rows[name, weights, block, distance] for block in shown]
                text.append(line([name, weights, *map(cell, found)]))
    text += [
        "",
        "\\* This block is inside the temporal U-Net, where a frame lasts 80 ms. All other frames last 40 ms.\n"
        'Block 0 is the input of the first block. "untrained" is the same network with random weights.',
        "",
    ]
    text += beside_the_paper(rows)
    controls = [
        [weights, *(cell(rows[CONFORMER_NAME, weights, last, distance]) for distance in TITLES)]
        for weights in ("trained", "untrained")
    ]
    text += [
        "",
        "The table shows the similarities after the last block of Conformer, in percent.",
        "",
        table(["weights of Conformer", *TITLES.values()], controls),
        "",
        "The similarity is also high with random weights.\n"
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
        (
            "In Conformer, the similarity to the next frame is about 95 %.",
            f"{near:.1f} % after the last block",
            abs(near - 95) <= 3,
        ),
        (
            "In Conformer, the similarity of frames at a distance of four frames is above 80 %.",
            f"{far:.1f} % after the last block",
            far > 80,
        ),
        (
            "In Conformer, the similarity grows with depth.",
            f"similarity to the next frame: {first:.1f} % after block 1, {near:.1f} % after the last block",
            near > first,
        ),
        (
            "The temporal U-Net limits the similarity to the next frame.",
            f"mean of {where}: {unet:.1f} % with the U-Net, {frames:.1f} % without the U-Net",
            unet < frames,
        ),
        (
            "The temporal U-Net limits the similarity of frames at the same distance in time.",
            f"frames at a distance of 80 ms, mean of {where}: {unet:.1f} % with the U-Net, "
            f"{time:.1f} % without the U-Net",
            unet < time,
        ),
    ]
    verdicts = [[claim, here, "yes" if agrees else "no"] for claim, here, agrees in claims]
    return [
        "## Comparison with the paper",
        "",
        "The table compares the claims of the paper with the results of these small encoders.",
        "",
        *table(["claim of the paper", "result here", "agrees"], verdicts).splitlines(),
    ]


def cell(row: dict[str, str]) -> str:
    """Return the similarity in percent, with an asterisk inside the U-Net."""
    return f"{100 * float(row['similarity']):.1f}" + ("\\*" if float(row["frame_ms"]) > 40 else "")
