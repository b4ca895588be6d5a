"""Figures of results: their colours, and how a file says what it was drawn from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

# Colours of Okabe and Ito, which people with any colour vision tell apart.
BLUE, RED, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"


def digest(path: Path) -> str:
    """Says which results a figure was drawn from."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(drawing: Any, path: Path, source: str) -> None:
    """Writes the figure; ``source`` is noted in the file."""
    drawing.savefig(path, dpi=110, metadata={"Source": source})
