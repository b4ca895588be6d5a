"""Functions that read NeMo manifests and compare each row with the header of the audio file."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

from nemo_squeezeformer.errors import UserError

AUDIO_EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
SHOWN = 5  # bad rows that one error message shows; the message counts the other bad rows
LARGE = 5_000  # minimum number of files for a progress bar
RELATIVE = " (a path in a manifest is absolute, or relative to the folder of the manifest)"
LOCAL_PATH_LIMIT = 255  # NeMo does not look for a longer audio_filepath in the manifest's folder


@dataclass(frozen=True, slots=True)
class Utterance:
    """A segment of speech: ``duration`` seconds of ``audio``, starting at second ``offset``.

    Attributes:
        row: the fields of the manifest row. A plain audio file has only the field ``audio_filepath``.
        audio: a path that can be opened from the current folder, or a list of paths if NeMo reads the channels from
            several files.
        offset: start of the segment in seconds.
        duration: length of the segment in seconds.
        channels: number of channels; 0 if the header is not read because the audio is in an object store, and 0 if the
            utterance cannot be used.
        problem: the reason why the utterance cannot be used, with the manifest and the line; empty for a good
            utterance.
    """

    row: dict[str, Any]
    audio: str | list[str]
    offset: float
    duration: float
    channels: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Header:
    seconds: float = 0.0
    channels: int = 0
    problem: str = ""


def audio_path(audio_filepath: str, manifest: str | os.PathLike[str]) -> str:
    """Return the path at which NeMo opens the audio of a manifest row.

    If the file exists relative to the folder of the manifest, return this absolute path. Otherwise return the path of
    the row. This rule is the rule of ``get_full_path`` in NeMo's ``collections.common.parts.preprocessing.manifest``.
    The import of NeMo's function would need seconds.
    """
    if "://" not in audio_filepath and not os.path.isabs(audio_filepath) and len(audio_filepath) < LOCAL_PATH_LIMIT:
        beside = os.path.join(os.path.dirname(manifest), audio_filepath)
        if os.path.isfile(beside):
            return os.path.abspath(beside)
    return os.path.expanduser(audio_filepath)


def read_utterances(
    manifest: str | os.PathLike[str],
    required: Sequence[str] = ("audio_filepath", "duration"),
    strict: bool = True,
) -> list[Utterance]:
    """Read a manifest and compare every row with the header of the audio file.

    Args:
        manifest: path of a file with one JSON object per line. The manifest of a tarred data set is not supported,
            because the audio is inside tar files. A manifest in an object store (``s3://...``) is not read, and no
            utterances are returned.
        required: fields that every row must have. Training needs ``duration``. Transcription does not need
            ``duration``.
        strict: if False, a row that cannot be used is an utterance with a ``problem``, at the place of the row.

    Raises:
        UserError: the manifest is missing, empty or not text, or ``strict`` is True and some rows cannot be used. A row
            cannot be used in three cases: the row is not JSON or lacks a field; the audio is missing, unreadable or
            empty; the offset or the duration does not fit the audio file. One error covers the whole manifest. The
            error gives the number of bad rows, and the line, the value and the remedy of the first bad rows.
    """
    if "://" in os.fspath(manifest):
        return []
    rows = _parsed(manifest, dict.fromkeys(["audio_filepath", *required]))
    paths = [[] if problem else [audio_path(name, manifest) for name in _names(row)] for _, row, problem in rows]
    headers = _headers(path for each in paths for path in each)
    utterances, problems = list[Utterance](), list[str]()
    for (number, row, problem), each in zip(rows, paths):
        found = [headers[path] for path in each]
        problem = (
            problem
            or next((header.problem for header in found if header.problem), "")
            or _stretch_problem(row, found[0])
        )
        if problem:
            problems.append(f"line {number}: {problem}")
            utterances.append(_unusable(row, f"{manifest}, line {number}: {problem}"))
        else:
            utterances.append(_utterance(row, each, found))
    if problems and strict:
        raise UserError(_summary(f"{manifest}: {len(problems)} of {len(rows)} rows cannot be used", problems))
    return utterances


def read_files(paths: Sequence[str | os.PathLike[str]], strict: bool = True) -> list[Utterance]:
    """Return one utterance for each audio file. The utterance is the whole file.

    Args:
        strict: if False, a file that cannot be used is an utterance with a ``problem``.

    Raises:
        UserError: ``strict`` is True and some files cannot be used. One error covers all files.
    """
    names = [os.fspath(path) for path in paths]
    headers = _headers(names)
    problems = [headers[name].problem for name in names if headers[name].problem]
    if problems and strict:
        raise UserError(_summary(f"{len(problems)} of {len(names)} audio files cannot be used", problems))
    return [
        _unusable(row, headers[name].problem) if headers[name].problem else _utterance(row, [name], [headers[name]])
        for name, row in ((name, {"audio_filepath": name}) for name in names)
    ]


def read_rows(manifest: str | os.PathLike[str], required: Iterable[str] = ()) -> list[tuple[int, dict[str, Any]]]:
    """Return the line number and the fields of each row of a manifest. The audio is not read.

    Raises:
        UserError: the manifest is missing, empty or not text; or some rows are not JSON objects, lack a field of
            ``required``, or have a field of a wrong type. One error covers the whole manifest.
    """
    rows = _parsed(manifest, required)
    problems = [f"line {number}: {problem}" for number, _, problem in rows if problem]
    if problems:
        raise UserError(_summary(f"{manifest}: {len(problems)} of {len(rows)} rows cannot be used", problems))
    return [(number, row) for number, row, _ in rows]


def _lines(manifest: str | os.PathLike[str]) -> list[tuple[int, str]]:
    try:
        with open(manifest, encoding="utf-8") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{manifest}: no such manifest; check the path (the current folder is {os.getcwd()})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{manifest}: cannot be read as a UTF-8 manifest ({error})") from None
    if not lines:
        raise UserError(f"{manifest}: the manifest is empty; write one JSON object with audio_filepath per line")
    return lines


def _parsed(manifest: str | os.PathLike[str], required: Iterable[str]) -> list[tuple[int, dict[str, Any], str]]:
    """Return the line number, the fields and the problem of each row. The problem of a good row is empty."""
    fields = tuple(required)
    return [(number, *_row(line, fields)) for number, line in _lines(manifest)]


def _names(row: dict[str, Any]) -> list[str]:
    audio = row["audio_filepath"]
    return audio if isinstance(audio, list) else [audio]


def _row(line: str, required: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the fields of a manifest line, and the problem of the line or an empty string."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"{_cut(line.strip())} is not JSON ({error}); a manifest has one JSON object per line"
    if not isinstance(row, dict):
        return {}, f"{_cut(line.strip())} is not a JSON object; a manifest has one JSON object per line, not one list"
    return row, _row_problem(row, required)


def _row_problem(row: dict[str, Any], required: Sequence[str]) -> str:
    for field in required:
        if row.get(field) in (None, "", []):
            return f"has no {field}; add it (the row has the fields: {_cut(', '.join(row))})"
    audio = row.get("audio_filepath", "")
    if not all(isinstance(name, str) for name in (audio if isinstance(audio, list) else [audio])):
        return f"audio_filepath {_cut(repr(audio))} is not a path; write it as a string"
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        return f"text {_cut(repr(text))} is not a string; write the text in quotation marks"
    for field in ("duration", "offset"):
        value = row.get(field)
        if value is not None and not _is_seconds(value):
            return f"{field} {_cut(repr(value))} is not a number of seconds; write a number without quotation marks"
    if row.get("duration") == 0:
        return f"duration 0 for {_cut(str(audio))}: the row has no audio; remove the row"
    return ""


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _headers(paths: Iterable[str]) -> dict[str, _Header]:
    """Return the header of each file. A file that several rows refer to is read once."""
    from tqdm import tqdm

    unique = list(dict.fromkeys(paths))
    # Most of the time is waiting for the disk or the network, so the headers are read in parallel threads.
    with ThreadPool(min(32, 4 * (os.cpu_count() or 1))) as pool:
        quiet = len(unique) < LARGE or not sys.stderr.isatty()
        found = tqdm(
            pool.imap(_header, unique, chunksize=64), "checking audio", len(unique), disable=quiet, unit=" files"
        )
        return dict(zip(unique, found))


def _header(path: str) -> _Header:
    import soundfile

    if "://" in path:
        return _Header()
    try:
        # soundfile.info also fetches libsndfile's log and is slower.
        with soundfile.SoundFile(path) as file:
            frames, rate, channels = file.frames, file.samplerate, file.channels
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        # The path is checked only after an error. One more call per file is slow for hundreds of thousands of files.
        if not os.path.exists(path):
            return _Header(problem=f"audio file {path!r} does not exist; correct the path{RELATIVE}")
        if not os.path.isfile(path):
            return _Header(problem=f"audio file {path!r} is not a file")
        if os.path.getsize(path) == 0:
            return _Header(problem=f"audio file {path!r} is empty (0 bytes); create it again or remove it")
        reason = str(error).removeprefix(f"Error opening {path!r}: ").strip()
        return _Header(
            problem=f"audio file {path!r} is corrupt or has a format that NeMo does not read ({reason}); create it "
            f"again, or convert it to one of {' '.join(sorted(name[1:] for name in AUDIO_EXTENSIONS))}"
        )
    if frames == 0:
        return _Header(problem=f"audio file {path!r} has a header but no samples; create it again or remove it")
    return _Header(frames / rate, channels)


def _stretch_problem(row: dict[str, Any], header: _Header) -> str:
    """Return the problem of a row whose offset or duration does not fit the audio file.

    Return an empty string if the offset and the duration fit. A row with an offset may end anywhere in the file.
    """
    duration, offset, seconds = row.get("duration"), row.get("offset") or 0.0, header.seconds
    if not header.channels:
        return ""
    # Small differences are not errors: encoders of lossy formats add padding, and durations in manifests are rounded.
    slack = max(0.25, 0.02 * seconds)
    name = _cut(str(row["audio_filepath"]))
    if offset >= seconds:
        return f"offset {offset} s is past the end of {name!r}, which has {seconds:.2f} s; correct the offset"
    if duration is None:
        return ""
    if offset + duration > seconds + slack:
        end = f"offset {offset} s + duration {duration} s" if offset else f"duration {duration} s"
        return f"{end} is more than the {seconds:.2f} s of {name!r}; correct the row"
    if row.get("offset") is None and duration < seconds - slack:
        remedy = 'correct the duration, or add "offset": 0 to use only the beginning'
        return f"duration {duration} s is less than the {seconds:.2f} s of {name!r}; {remedy}"
    return ""


def _utterance(row: dict[str, Any], paths: list[str], headers: list[_Header]) -> Utterance:
    audio: str | list[str] = paths if isinstance(row["audio_filepath"], list) else paths[0]
    channels = len(paths) if isinstance(audio, list) else headers[0].channels
    offset = float(row.get("offset") or 0.0)
    rest = headers[0].seconds - offset if channels else row.get("duration") or 0.0
    return Utterance(row, audio, offset, float(min(row.get("duration") or rest, rest)), channels)


def _unusable(row: dict[str, Any], problem: str) -> Utterance:
    audio = row.get("audio_filepath", "")
    return Utterance(row, audio if isinstance(audio, (str, list)) else "", 0.0, 0.0, 0, problem)


def _summary(head: str, problems: Sequence[str]) -> str:
    more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([head, *problems[:SHOWN], *more])


def _cut(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
