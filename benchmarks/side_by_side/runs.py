"""The trainings that a file of results holds, a line each, and which of them is the best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.measuring.recordings import json_lines


def done(results: Path) -> list[dict[str, Any]]:
    return json_lines(results) if results.exists() else []


def claim(results: Path, *key: object) -> bool:
    """Whether this process is the one to do the run of that key."""
    folder = results.with_suffix(".claims")
    folder.mkdir(exist_ok=True)
    try:
        (folder / "_".join(map(str, key)).replace(" ", "-")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def best_peak(runs: list[dict[str, Any]], architecture: str, peaks: list[float]) -> float | None:
    """The peak with the least word error rate on the dev set, once all have been run; None before."""
    first = {
        r["peak_lr"]: r["wer"].get("dev", math.inf)
        for r in runs
        if r["architecture"] == architecture and r["seed"] == 0
    }
    return min(first, key=lambda peak: first[peak]) if set(peaks) <= set(first) else None


def failed(run: dict[str, Any], best: float) -> bool:
    """Whether it did not converge: 90 % of errors or more, or a loss that ends thrice as high as ``best`` or higher."""
    return not run["finite"] or run["loss"][-1] >= 3 * best or run["wer"]["dev"] >= 90
