"""The rows of a manifest: the fields of each line, and the reason why a line is not a row."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_lines import read_lines

SHOWN = 5  # bad rows that one error message shows; the message counts the other bad rows
DEEPEST = 100  # levels of lists and objects in a row; json cannot write a row with more than about 1,000 levels
ONE_OBJECT = "a manifest has one JSON object per line"


class UnusableRows(UserError):
    """Rows of a manifest that cannot be used."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a manifest.

    Attributes:
        number: the number of the line, from 1.
        fields: the fields of the row; empty if the line is not a JSON object.
        problem: the reason why the row cannot be used, without the number of the line; empty for a good row.
    """

    number: int
    fields: dict[str, Any]
    problem: str = ""


def read_rows(
    manifest: str | os.PathLike[str], required: Iterable[str] = (), for_training: bool = False
) -> list[tuple[int, dict[str, Any]]]:
    """Return the line number and the fields of each row of a manifest. The audio is not read.

    Args:
        required: fields that every row must have.
        for_training: if True, the text of a row must not be null.

    Raises:
        UserError: see ``good_rows``.
    """
    return list(good_rows(manifest, required, for_training))


def good_rows(
    manifest: str | os.PathLike[str], required: Iterable[str] = (), for_training: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the fields of each good row of a manifest.

    Raises:
        UserError: the manifest is missing, empty or not text.
        UnusableRows: some rows are not JSON objects, lack a field of ``required``, or have a field of a wrong type. The
            error comes after the last row and covers the whole manifest.
    """
    rows, problems = 0, list[str]()
    for row in parsed_rows(manifest, required, for_training):
        rows += 1
        if row.problem:
            problems.append(f"line {row.number}: {row.problem}")
        else:
            yield row.number, row.fields
    refuse(manifest, problems, rows)


def refuse(manifest: str | os.PathLike[str], problems: Sequence[str], rows: int) -> None:
    """Raise UnusableRows if some of the ``rows`` rows of a manifest have problems."""
    if problems:
        raise UnusableRows(summary(f"{manifest}: {len(problems)} of {rows} rows cannot be used", problems))


def summary(head: str, problems: Sequence[str]) -> str:
    """Return a message with the first problems, and the number of the other problems."""
    more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([head, *problems[:SHOWN], *more])


def parsed_rows(
    manifest: str | os.PathLike[str], required: Iterable[str] = (), for_training: bool = False
) -> Iterator[Row]:
    """Yield each row of a manifest. A line that cannot be used is a row with a problem.

    Raises:
        UserError: the manifest is missing, empty or not text, or the whole manifest is one JSON document.
    """
    fields, first = tuple(required), True
    for number, line in read_lines(manifest):
        if first and line.strip() in ("[", "{"):
            raise UserError(
                f"{manifest}: the manifest is one JSON document of several lines, but {ONE_OBJECT}; convert it with: "
                f"jq -c '.{'[]' * line.strip().count('[')}' {manifest} > NEW"
            )
        first = False
        row = _row(number, line, fields)
        if for_training and not row.problem and row.fields.get("text", "") is None:
            problem = "text is null, and NeMo drops a row without a text; write the text in quotation marks"
            row = Row(number, row.fields, problem)
        yield row


def encoding_problem(line: str) -> str:
    """Return the problem of a line with a byte that is not UTF-8, or an empty string."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = line[error.start].encode("utf-8", "surrogateescape")[0]
        return (
            f"{cut(line.strip())} has the byte 0x{byte:02x}, which is not UTF-8, at column {error.start + 1}; convert "
            "the file with: iconv -f ENCODING -t UTF-8, for example with the encoding latin1"
        )
    return ""


def cut(text: str, length: int = 80) -> str:
    """Return a text with at most ``length`` printable characters."""
    shown = text[: length + 1].encode("utf-8", "backslashreplace").decode()
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)
    return shown if len(shown) <= length else shown[: length - 3] + "..."


def _row(number: int, line: str, required: Sequence[str]) -> Row:
    if not line.isascii() and (problem := encoding_problem(line)):
        return Row(number, {}, problem)
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        ends_inside = line.lstrip().startswith("{") and not line.endswith(("\n", "}"))
        remedy = "the file ends inside the row; write the manifest again, or remove the row"
        reason = f"{error.msg} at column {error.colno}"
        problem = f"not a JSON object: {cut(line.strip())} is not JSON ({reason})"
        return Row(number, {}, f"{problem}; {remedy if ends_inside else ONE_OBJECT}")
    except (ValueError, RecursionError) as error:
        problem = f"not a JSON object: {cut(line.strip())} cannot be read as JSON ({_reason(error)}); correct the row"
        return Row(number, {}, problem)
    if not isinstance(row, dict):
        remedy = "; write each object of a list on its own line, for example with jq -c '.[]'"
        problem = f"not a JSON object: {cut(line.strip())}; {ONE_OBJECT}"
        return Row(number, {}, problem + remedy if isinstance(row, list) else problem)
    if line.count("[") + line.count("{") > DEEPEST and _levels(row) > DEEPEST:
        problem = f"{cut(line.strip())} has more than {DEEPEST} levels of lists and objects; correct the row"
        return Row(number, {}, problem)
    if "\\u" in line and (problem := _surrogate_problem(row)):
        return Row(number, {}, problem)
    return Row(number, row, _field_problem(row, required))


def _surrogate_problem(row: dict[str, Any]) -> str:
    """Return the problem of a row with half of a surrogate pair, for example ``"\\\\ud83d"``, or an empty string."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return (
            f"the row has the character \\u{ord(error.object[error.start]):04x}, which is half of a character and "
            "cannot be written as UTF-8; correct the row, and rename an audio file with a name that is not UTF-8"
        )
    return ""


def _field_problem(row: dict[str, Any], required: Sequence[str]) -> str:
    for field in required:
        if row.get(field) in (None, "", []):
            return f"has no {field}; add it (the row has the fields: {cut(', '.join(row))})"
    audio = row.get("audio_filepath", "")
    for name in audio if isinstance(audio, list) else [audio]:
        if not isinstance(name, str):
            return f"audio_filepath {_shown(name)} is not a path; write it as a string"
        if "\0" in name:
            return f"audio_filepath {_shown(name)} has the character \\u0000; correct the path"
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        return f"text {_shown(text)} is not a string; write the text in quotation marks"
    for field in ("duration", "offset"):
        value = row.get(field)
        if value is not None and not _is_seconds(value):
            return f"{field} {_shown(value)} is not a number of seconds; write a number from 0, without quotation marks"
    if row.get("duration") == 0:
        return f"duration 0 for {cut(str(audio))}: the row has no audio; remove the row"
    return ""


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _shown(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value))


def _levels(row: Any) -> int:
    """Return the number of levels of lists and objects. A value that is not a list or an object has no levels."""
    levels, level = 0, [row]
    while level := [value for value in level if isinstance(value, (dict, list))]:
        levels += 1
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    return levels


def _reason(error: Exception) -> str:
    return "the nesting is too deep" if isinstance(error, RecursionError) else str(error).partition(";")[0]
