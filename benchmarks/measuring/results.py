"""Measurements in a file, to which later ones of the same conditions are added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
ORDER = ("threads", "batch", "seconds")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What all files of a folder hold, by the names of the files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


class Results:
    """One file: the conditions, and for each part of the suite a list of measurements.

    A measurement is a dict: a key, such as seconds and threads, which says what was measured; the ``commit`` whose code
    it was; by encoder what was ``measured``, and why others were ``left_out``.

    Raises:
        ValueError: when the file holds figures made under other conditions.
    """

    def __init__(self, path: Path, conditions: dict[str, str], commit: str, again: bool = False):
        self.path, self.commit, self.again = path, commit, again
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"conditions": conditions}
        held = self.data["conditions"]
        other = [
            f"{name}: {held.get(name)!r}, now {now!r}" for name, now in conditions.items() if held.get(name) != now
        ]
        if other:
            raise ValueError(
                f"{path} was made under other conditions ({'; '.join(other)}); restore them, or give another --output"
            )

    def find(self, part: str, key: dict[str, Any]) -> dict[str, Any]:
        """What the file holds by that key; nothing measured where it has none."""
        rows = self.data.get(part, [])
        found = (row for row in rows if all(row.get(name) == value for name, value in key.items()))
        return next(found, {"measured": {}, "left_out": {}})

    def missing(self, part: str, key: dict[str, Any], names: list[str]) -> list[str]:
        """Which of ``names`` have not been measured; all, when everything is measured again."""
        measured = {} if self.again else self.find(part, key)["measured"]
        return [name for name in names if name not in measured]

    def add(self, part: str, key: dict[str, Any], measured: dict[str, Any], left_out: dict[str, str]) -> None:
        """Write a measurement into the file, in the place of what it held by that key."""
        old = self.find(part, key)
        rows = [row for row in self.data.get(part, []) if row is not old]
        rows.append({**key, "commit": self.commit, "measured": measured, "left_out": left_out})
        self.data[part] = sorted(rows, key=lambda row: [row.get(name, 0) for name in ORDER])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.data, indent=1) + "\n")
        partial.replace(self.path)
