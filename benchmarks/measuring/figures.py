"""Figures of results: their colors, and a note in each file about the results that it shows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

# The colors of Okabe and Ito: people with any color vision can tell them apart.
BLUE, RED, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a file of results. A figure stores it to name its source."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(drawing: Any, path: Path, source: str) -> None:
    """Write the figure to ``path`` and store ``source`` in the metadata of the file."""
    drawing.savefig(path, dpi=110, metadata={"Source": source})
