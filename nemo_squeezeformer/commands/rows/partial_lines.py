"""The lines of the file OUT.partial.

The first line is a JSON object with the settings of the run. Each further line is a JSON object with these fields:

- ``index``: the number of the utterance in the order of the input, from 0.
- ``seconds``: the length of the utterance.
- ``whole``: False if the utterance must be transcribed again, because of an error or an interruption.
- ``row``: the row of the utterance in OUT.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nemo_squeezeformer.files.manifests import Utterance

FORMAT = {"partial": "nemo-squeezeformer", "format": 1}  # the first fields of the first line
Row = dict[str, Any]


def header_of(utterances: Sequence[Utterance], settings: Mapping[str, Any]) -> Row:
    """Return the object of the first line. Runs with equal objects give the same rows."""
    digest = hashlib.sha256()
    for utterance in utterances:
        digest.update(json.dumps(utterance.row).encode() + b"\n")
    return {**FORMAT, "utterances": len(utterances), "inputs": digest.hexdigest(), "settings": dict(settings)}


def is_cut_header(data: bytes) -> bool:
    """Return True if ``data`` is the beginning of the first line."""
    start = json.dumps(FORMAT)[:-1].encode()
    return data[: len(start)] == start[: len(data)]


def difference(old: Row, new: Row) -> str:
    """Return a description of the differences between two objects of ``header_of``, or an empty string."""
    if {name: old.get(name) for name in FORMAT} != FORMAT or not isinstance(old.get("settings"), dict):
        return "it does not begin as the rows of an unfinished run do"
    was, now = old["settings"], json.loads(json.dumps(new["settings"]))
    different = [
        f"{name} was {_shown(was.get(name))} and is now {_shown(now.get(name))}"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]
    if old.get("utterances") != new["utterances"]:
        different.append(f"the inputs had {old.get('utterances')} utterances and now have {new['utterances']}")
    elif old.get("inputs") != new["inputs"]:
        different.append("the rows of the inputs have changed")
    return "; ".join(different)


def json_line(row: Row) -> str:
    """Return a JSON object in one line. A name that is not valid Unicode is written with escapes."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def write_json_lines(path: Path, rows: Sequence[Row]) -> None:
    """Write a JSON object for each row, in a line of its own."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json_line(row) + "\n" for row in rows)


def parsed(line: bytes) -> Row:
    """Return the JSON object of a line, or an empty dictionary if the line is not a JSON object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds_of(utterance: Utterance) -> float:
    """Return the length of an utterance as a line of OUT.partial stores the length."""
    return round(utterance.duration, 3)


def file_state(path: str) -> str:
    """Return the path, the size and the time of a file, or the name if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    changed = datetime.fromtimestamp(found.st_mtime, timezone.utc)
    return f"{os.path.abspath(path)} ({found.st_size} bytes, changed {changed.isoformat()})"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
