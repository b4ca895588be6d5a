"""The table of the speed benchmark that docs/benchmarks.md quotes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measuring.results import read
from benchmarks.measuring.tables import milliseconds, table

QUOTED = "cpu-nemo-2.7.3"
NAMES = {
    "in-tree": "NeMo 2.7.3's Squeezeformer",
    "Conformer, SDPA": "NeMo's Conformer, SDPA",
    "FastConformer": "NeMo's FastConformer (8x)",
    "ours": "our Squeezeformer",
    "ours, optimised": "our Squeezeformer, `optimize_for_inference()`",
    "ours, local": "our Squeezeformer, local attention",
    "ours, 8x, optimised": "our Squeezeformer, `rate=8x`, `optimize_for_inference()`",
}
LENGTHS = (5, 15, 60, 300)


def quoted(folder: Path) -> str:
    """Return the table: time for one utterance on one thread, and memory for the longest utterance."""
    data = read(folder)[QUOTED]
    times = {row["seconds"]: row["measured"] for row in data["inference"] if row["threads"] == row["batch"] == 1}
    memory = {row["seconds"]: row["measured"] for row in data["memory"]}
    lengths = [seconds for seconds in LENGTHS if seconds in times]
    rows = []
    for name, called in NAMES.items():
        cells = [milliseconds(times[s][name]["ms"][1]) if name in times[s] else "-" for s in lengths]
        peak = memory[lengths[-1]].get(name)
        rows.append([called, *cells, f"{peak['MiB']:,.0f}" if peak else "-"])
    head = ["encoder", *(f"time for {seconds} s, ms" for seconds in lengths), f"memory for {lengths[-1]} s, MiB"]
    return table(head, rows) + "\n"
