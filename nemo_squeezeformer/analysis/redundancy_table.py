"""The numbers of the figure of temporal redundancy, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.analysis.redundancy_plot import Curves

COLUMNS = [
    "model", "weights", "block", "frame_ms", "distance_frames", "distance_ms", "similarity", "spread", "pairs",
]  # fmt: skip


def table(curves: Sequence[Curves], conditions: Sequence[str]) -> str:
    """Return the table of numbers as CSV text.

    The text begins with the conditions, in lines that begin with ``#``. Read the file with
    ``pandas.read_csv(file, comment="#")``.
    """
    file = io.StringIO()
    file.writelines(f"# {condition}\n" for condition in conditions)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for curve in curves:
        for block in curve.blocks:
            means: list[tuple[Any, Any, Any]] = [
                (distance, f"{distance * block.frame_ms:g}", mean) for distance, mean in block.neighbours.items()
            ]
            for distance, milliseconds, mean in [*means, ("any", "any", block.any_two)]:
                weights = "untrained" if curve.untrained else "trained"
                where = [curve.label, weights, block.number, f"{block.frame_ms:g}", distance, milliseconds]
                writer.writerow([*where, f"{mean.value:.5f}", f"{mean.spread:.5f}", mean.pairs])
    return file.getvalue()
