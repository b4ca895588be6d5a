"""The trainings in a file of results, one line for each training, and the claims of processes that share the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measuring.recordings import json_lines


def done(results: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results. A file that does not exist has no lines."""
    return json_lines(results) if results.exists() else []


def claim(results: Path, *key: object) -> bool:
    """Claim the training with this key. Return False if this or another process has claimed the training before."""
    folder = results.with_suffix(".claims")
    folder.mkdir(exist_ok=True)
    try:
        (folder / "_".join(map(str, key)).replace(" ", "-")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
