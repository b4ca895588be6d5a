"""The page of results that compares fine-tuning with training from random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.finetuning.train import FINE_TUNED, FROM_RANDOM
from benchmarks.measuring.claims import done
from benchmarks.measuring.tables import table


def rows(runs: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield a row for each way and peak learning rate, with one number for each seed. No run is left out."""
    sets = evaluated(runs)
    for way in (FINE_TUNED, FROM_RANDOM):
        for peak in sorted({run["peak_lr"] for run in runs if run["way"] == way}):
            mine = sorted((r for r in runs if (r["way"], r["peak_lr"]) == (way, peak)), key=lambda run: run["seed"])
            rates = [", ".join(f"{run['wer'][name]:.1f}" if run["wer"] else "-" for run in mine) for name in sets]
            yield [way, f"{peak:g}", *rates, ", ".join(f"{run['cpu_seconds']:.0f}" for run in mine)]


def evaluated(runs: list[dict[str, Any]]) -> list[str]:
    """Return the names of the evaluated manifests. A run that did not converge has no results."""
    found: list[list[str]] = [list(run["wer"]) for run in runs]
    return max(found, key=len)


def parts(results: Path) -> Iterator[str]:
    yield "# Fine-tuning"
    yield (
        "`python -m benchmarks.finetuning` makes this page. The `.jsonl` files in this folder have all runs. Both ways "
        "train the same network with the same vocabulary, data, batches and number of steps. Word error rates are in "
        "percent, with one number for each seed."
    )
    for path in sorted(results.glob("*.jsonl")):
        runs = done(path)
        sets = [f"WER on {name}" for name in evaluated(runs)]
        yield f"## {path.stem}"
        yield f"Each training has {runs[0]['steps']} steps."
        yield table(["way", "peak learning rate", *sets, "processor seconds"], list(rows(runs)))


def page(results: Path) -> str:
    """Return the whole page in Markdown."""
    return "\n\n".join(parts(results)) + "\n"
