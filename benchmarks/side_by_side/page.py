"""The page of results that compares the encoders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring.claims import done
from benchmarks.measuring.small_encoders import SMALL_ENCODERS
from benchmarks.measuring.tables import table
from benchmarks.side_by_side.runs import best_peak, failed

EXPLAINED = """\

- "dev WER at": the word error rate on the dev set at the named peak learning rate, for the first seed.
- "best rate": the peak learning rate with the lowest word error rate on the dev set.
- The columns "WER on" and "processor seconds" show the results at the best rate, with one number for each seed. The
  test set "seen" has the speakers of the training, and the test set "unseen" has an unseen speaker.
- "processor seconds": the processor time of the training. The machine also did other work during the trainings. It did
  no other work during the measurement of the training steps above.
- "no convergence at": the peak learning rates at which a training did not converge. A training did not converge if the
  word error rate on the dev set is 90 % or more, or if the final loss is at least three times the lowest final loss of
  the same encoder."""


def times(timed: dict[str, Any]) -> str:
    rows = []
    for name in SMALL_ENCODERS:
        row = timed[name]
        low, high = row["step_ms_quartiles"]
        counts = [f"{row['parameters']:,}", f"{row['gflops_30_s']:.2f}"]
        rows.append([name, *counts, f"{row['step_ms']} ({low}-{high})"])
    return table(["encoder", "parameters", "GFLOPs for 30 s", "time of a training step, ms (quartiles)"], rows)


def rates(runs: list[dict[str, Any]]) -> str:
    """Return a table with a row for each encoder.

    A row has the word error rate on dev at every peak learning rate, and all test sets at the best peak.
    """
    most = max((run["wer"] for run in runs), key=len)
    sets = list(most)
    peaks = sorted({run["peak_lr"] for run in runs})
    rows = []
    for name in SMALL_ENCODERS:
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
    at_peaks = [f"dev WER at {peak:g}" for peak in peaks]
    at_best_rate = [f"WER on {which}" for which in sets]
    return table(["encoder", *at_peaks, "best rate", *at_best_rate, "processor seconds", "no convergence at"], rows)


def parts(results: Path) -> Iterator[str]:
    timed = json.loads((results / "time.json").read_text())
    yield "# Side by side"
    yield "`python -m benchmarks.side_by_side` makes this page. The `.jsonl` files in this folder have all runs."
    yield times(timed)
    conditions = ". ".join(timed["conditions"].values())
    yield (
        "A training step is a forward and a backward pass over 16 utterances of 2 to 4 s. The program calls the "
        'encoders alternately. Conformer and FastConformer are NeMo\'s encoders. "8x" is the setting `rate=8x`. '
        f"{conditions}."
    )
    for path in sorted(results.glob("*.jsonl")):
        runs = done(path)
        yield f"## Trainings on {path.stem}"
        lines = [
            f"Each training has {runs[0]['steps']} steps. Word error rates are in percent.",
            EXPLAINED,
        ]
        if all(failed(run, math.inf) for run in runs):
            lines.append(
                "\nAfter these few steps no encoder has learned to transcribe. This table does not show which encoder\n"
                "is better."
            )
        yield "\n".join(lines)
        yield rates(runs)


def page(results: Path) -> str:
    """Return the whole page in Markdown."""
    return "\n\n".join(parts(results)) + "\n"
