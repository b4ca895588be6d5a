"""A file of measurements. Later measurements under the same conditions are added to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
ORDER = ("threads", "batch", "seconds")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the contents of all JSON files of a folder, by file name without suffix."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


class Results:
    """A file with the conditions, and a list of measurements for each part of a benchmark.

    A measurement is a dict. It has the items of its key, for example seconds and threads. It has the ``commit`` of the
    measured code. ``measured`` has a value for each encoder, and ``left_out`` has a reason for each omitted encoder.

    Raises:
        ValueError: The file has measurements that were made under other conditions.
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
                f"{path} was made under other conditions ({'; '.join(other)}). "
                "Restore the conditions, or give another --output"
            )

    def find(self, part: str, key: dict[str, Any]) -> dict[str, Any]:
        """Return the measurement with this key, or an empty measurement if the file has no such key."""
        rows = self.data.get(part, [])
        found = (row for row in rows if all(row.get(name) == value for name, value in key.items()))
        return next(found, {"measured": {}, "left_out": {}})

    def missing(self, part: str, key: dict[str, Any], names: list[str]) -> list[str]:
        """Return the ``names`` without a measurement. With ``again`` (see the constructor), return all ``names``."""
        measured = {} if self.again else self.find(part, key)["measured"]
        return [name for name in names if name not in measured]

    def add(self, part: str, key: dict[str, Any], measured: dict[str, Any], left_out: dict[str, str]) -> None:
        """Write a measurement into the file. It replaces an earlier measurement with the same key."""
        old = self.find(part, key)
        rows = [row for row in self.data.get(part, []) if row is not old]
        rows.append({**key, "commit": self.commit, "measured": measured, "left_out": left_out})
        self.data[part] = sorted(rows, key=lambda row: [row.get(name, 0) for name in ORDER])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.data, indent=1) + "\n")
        partial.replace(self.path)
