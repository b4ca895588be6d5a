"""The page of the encoders side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring.tables import table
from benchmarks.side_by_side.encoders import ARCHITECTURES
from benchmarks.side_by_side.runs import best_peak, done, failed

EXPLAINED = """\
Processor seconds: of the training at that rate, beside other work on the machine; the steps above: alone.
No convergence: 90 or more on dev, or a loss that ends three times as high as in the encoder's best run."""


def times(timed: dict[str, Any]) -> str:
    rows = []
    for name in ARCHITECTURES:
        row = timed[name]
        low, high = row["step_ms_quartiles"]
        counts = [f"{row['parameters']:,}", f"{row['gflops_30_s']:.2f}"]
        rows.append([name, *counts, f"{row['step_ms']} ({low}-{high})"])
    return table(["encoder", "parameters", "GFLOPs at 30 s", "training step, ms (quartiles)"], rows)


def rates(runs: list[dict[str, Any]]) -> str:
    """A row for each encoder: word error rates at every peak, and all tests at the best."""
    most = max((run["wer"] for run in runs), key=len)
    sets = list(most)
    peaks = sorted({run["peak_lr"] for run in runs})
    rows = []
    for name in ARCHITECTURES:
        mine = [run for run in runs if run["architecture"] == name]
        best = best_peak(runs, name, peaks)
        if best is None:
            continue
        by_peak = {run["peak_lr"]: run["wer"].get("dev") for run in mine if run["seed"] == 0}
        at_best = sorted((run for run in mine if run["peak_lr"] == best), key=lambda run: run["seed"])
        cells = [name, *(f"{by_peak[peak]:.1f}" if by_peak[peak] is not None else "-" for peak in peaks), f"{best:g}"]
        cells += [", ".join(f"{run['wer'][which]:.1f}" if run["wer"] else "-" for run in at_best) for which in sets]
        cells.append(", ".join(f"{run['cpu_seconds']:.0f}" for run in at_best))
        least = min(run["loss"][-1] for run in mine if run["finite"])
        lost = sorted({run["peak_lr"] for run in mine if failed(run, least)})
        rows.append([*cells, ", ".join(f"{peak:g}" for peak in lost) or "none"])
    at_peaks = [f"dev at {peak:g}" for peak in peaks]
    return table(["encoder", *at_peaks, "best", *sets, "processor seconds", "no convergence at"], rows)


def parts(results: Path) -> Iterator[str]:
    timed = json.loads((results / "time.json").read_text())
    yield "# Side by side"
    yield "Made by `python -m benchmarks.side_by_side`; every run is in the `.jsonl` files here."
    yield times(timed)
    conditions = ". ".join(timed["conditions"].values())
    yield f"16 utterances of 2 to 4 s, forward and backward, interleaved. {conditions}."
    for path in sorted(results.glob("*.jsonl")):
        runs = done(path)
        yield f"## {path.stem}"
        lines = [
            f"{runs[0]['steps']} steps. Word error rates in percent; on the right at the best rate, one figure a seed.",
            EXPLAINED,
        ]
        if all(failed(run, math.inf) for run in runs):
            lines.append("So few steps taught none of them to transcribe: this table tells no encoder from another.")
        yield "\n".join(lines)
        yield rates(runs)


def page(results: Path) -> str:
    """The whole page, as Markdown."""
    return "\n\n".join(parts(results)) + "\n"
