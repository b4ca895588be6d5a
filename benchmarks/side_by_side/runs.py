"""The choice of the best learning rate, and the trainings that did not converge."""

from __future__ import annotations

import math
from typing import Any


def best_peak(runs: list[dict[str, Any]], architecture: str, peaks: list[float]) -> float | None:
    """Return the peak learning rate with the lowest word error rate on dev.

    Return None until the first seed has been trained at all ``peaks``.
    """
    first = {
        r["peak_lr"]: r["wer"].get("dev", math.inf)
        for r in runs
        if r["architecture"] == architecture and r["seed"] == 0
    }
    return min(first, key=lambda peak: first[peak]) if set(peaks) <= set(first) else None


def failed(run: dict[str, Any], best: float) -> bool:
    """Return True if the run did not converge.

    A run did not converge if weights are not finite, if the word error rate on dev is 90 % or more, or if the final
    loss is ``3 * best`` or more.
    """
    return not run["finite"] or run["loss"][-1] >= 3 * best or run["wer"]["dev"] >= 90
