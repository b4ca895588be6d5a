"""NeMo manifests: what their rows say, held against the audio files themselves."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

from nemo_squeezeformer.errors import UserError

AUDIO_EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
SHOWN = 5  # bad rows spelled out in one error; the rest are counted
LARGE = 5_000  # files from which reading the headers is worth a progress bar
RELATIVE = " (in a manifest: relative to its folder, or absolute)"
LOCAL_PATH_LIMIT = 255  # NeMo takes a longer audio_filepath as it stands, without the manifest's folder


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech: ``duration`` seconds of ``audio`` from second ``offset`` on.

    ``row`` is the manifest's line as written (for a plain file: its ``audio_filepath``). ``audio`` opens from here; it
    is a list where NeMo takes the channels from several files. ``channels`` is 0 for audio in an object store, which is
    not looked at.
    """

    row: dict[str, Any]
    audio: str | list[str]
    offset: float
    duration: float
    channels: int


@dataclass(frozen=True, slots=True)
class _Header:
    seconds: float = 0.0
    channels: int = 0
    problem: str = ""


def audio_path(audio_filepath: str, manifest: str | os.PathLike[str]) -> str:
    """Where NeMo looks for a row's audio: in the manifest's folder first, else as written.

    The rule of NeMo's ``collections.common.parts.preprocessing.manifest.get_full_path``, without its seconds of import.
    """
    if "://" not in audio_filepath and not os.path.isabs(audio_filepath) and len(audio_filepath) < LOCAL_PATH_LIMIT:
        beside = os.path.join(os.path.dirname(manifest), audio_filepath)
        if os.path.isfile(beside):
            return os.path.abspath(beside)
    return os.path.expanduser(audio_filepath)


def read_utterances(
    manifest: str | os.PathLike[str], required: Sequence[str] = ("audio_filepath", "duration")
) -> list[Utterance]:
    """Read a manifest and hold every row against the header of its audio file.

    Args:
        manifest: JSON lines, one utterance a line. Not that of a tarred data set, whose audio is inside tar files; one
            in an object store (``s3://...``) is left to NeMo, and gives no utterances.
        required: fields every row must have; training needs ``duration``, transcribing does not.

    Raises:
        UserError: one error for the whole manifest, with the number of bad rows and the first few, each with its line,
            its value and the remedy: no such manifest, nothing in it, a line that is not JSON or lacks a field, audio
            that is missing, unreadable or of zero length, a duration that the file does not have.
    """
    if "://" in os.fspath(manifest):
        return []
    lines, problems = _lines(manifest), dict[int, str]()
    rows = list(_rows(lines, required, problems))
    paths = [[audio_path(name, manifest) for name in _names(row)] for _, row in rows]
    headers = _headers(path for each in paths for path in each)
    utterances = []
    for (number, row), each in zip(rows, paths):
        found = [headers[path] for path in each]
        problem = next((header.problem for header in found if header.problem), "") or _stretch_problem(row, found[0])
        if problem:
            problems[number] = problem
        else:
            utterances.append(_utterance(row, each, found))
    if problems:
        shown = [f"line {number}: {problems[number]}" for number in sorted(problems)]
        raise UserError(_summary(f"{manifest}: {len(problems)} of {len(lines)} rows cannot be used", shown))
    return utterances


def read_files(paths: Sequence[str | os.PathLike[str]]) -> list[Utterance]:
    """The same for plain audio files, each one utterance from its start to its end."""
    names = [os.fspath(path) for path in paths]
    headers = _headers(names)
    problems = [headers[name].problem for name in names if headers[name].problem]
    if problems:
        raise UserError(_summary(f"{len(problems)} of {len(names)} audio files cannot be used", problems))
    return [_utterance({"audio_filepath": name}, [name], [headers[name]]) for name in names]


def _lines(manifest: str | os.PathLike[str]) -> list[tuple[int, str]]:
    try:
        with open(manifest, encoding="utf-8") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{manifest}: no such manifest; check the path (the current folder is {os.getcwd()})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{manifest}: cannot be read as a UTF-8 manifest ({error})") from None
    if not lines:
        raise UserError(f"{manifest}: the manifest is empty; write one JSON object a line, with audio_filepath in each")
    return lines


def _rows(
    lines: Iterable[tuple[int, str]], required: Sequence[str], problems: dict[int, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers and the fields of the lines that are rows; what is wrong with the others goes to ``problems``."""
    for number, line in lines:
        row = _row(line, required)
        if isinstance(row, str):
            problems[number] = row
        else:
            yield number, row


def _names(row: dict[str, Any]) -> list[str]:
    audio = row["audio_filepath"]
    return audio if isinstance(audio, list) else [audio]


def _row(line: str, required: Sequence[str]) -> dict[str, Any] | str:
    """The line's fields, or what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"{_cut(line.strip())} is not JSON ({error}); a manifest has one JSON object a line"
    if not isinstance(row, dict):
        return (
            f"{_cut(line.strip())} is not a JSON object; a manifest has one object a line, not one list around them all"
        )
    for field in dict.fromkeys(["audio_filepath", *required]):
        if row.get(field) in (None, "", []):
            return f"has no {field}; add it (the fields here are: {', '.join(row)})"
    audio = row["audio_filepath"]
    if not all(isinstance(name, str) for name in _names(row)):
        return f"audio_filepath {audio!r} is not a path; write it as a string"
    for field in ("duration", "offset"):
        value = row.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
            return f"{field} {value!r} is not a number of seconds"
    if row.get("duration") == 0:
        return f"duration 0 for {_cut(str(audio))}: nothing to hear; leave the row out"
    return row


def _headers(paths: Iterable[str]) -> dict[str, _Header]:
    """Each file's header, read once: the rows of a segmented recording share theirs."""
    from tqdm import tqdm

    unique = list(dict.fromkeys(paths))
    # Reading a header is waiting for the disk, more so on a network: threads wait together.
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
        # Not soundfile.info: it also fetches libsndfile's log, which makes it half as fast again.
        with soundfile.SoundFile(path) as file:
            frames, rate, channels = file.frames, file.samplerate, file.channels
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        # The disk is asked only now: one call a good file matters with hundreds of thousands of them.
        if not os.path.exists(path):
            return _Header(problem=f"audio file {path!r} does not exist; correct the path{RELATIVE}")
        if not os.path.isfile(path):
            return _Header(problem=f"audio file {path!r} is not a file")
        if os.path.getsize(path) == 0:
            return _Header(problem=f"audio file {path!r} is empty (0 bytes); make it again or leave it out")
        reason = str(error).removeprefix(f"Error opening {path!r}: ").strip()
        return _Header(
            problem=f"audio file {path!r} is corrupt or of a kind that NeMo does not read ({reason}); make it again, "
            f"or convert it to one of {' '.join(sorted(name[1:] for name in AUDIO_EXTENSIONS))}"
        )
    if frames == 0:
        return _Header(problem=f"audio file {path!r} has a header but no samples; make it again or leave it out")
    return _Header(frames / rate, channels)


def _stretch_problem(row: dict[str, Any], header: _Header) -> str:
    """Whether the file holds what the row claims; a row with an offset may end anywhere inside."""
    duration, offset, seconds = row.get("duration"), row.get("offset") or 0.0, header.seconds
    if not header.channels:
        return ""
    # Encoders of lossy formats pad, and manifests round: neither is a mistake.
    slack = max(0.25, 0.02 * seconds)
    name = _cut(str(row["audio_filepath"]))
    if offset >= seconds:
        return f"offset {offset} s is past the end of {name!r}, which has {seconds:.2f} s; correct it"
    if duration is None:
        return ""
    if offset + duration > seconds + slack:
        end = f"offset {offset} s + duration {duration} s" if offset else f"duration {duration} s"
        return f"{end} is more than the {seconds:.2f} s of {name!r}; correct it"
    if row.get("offset") is None and duration < seconds - slack:
        remedy = 'correct it, or write "offset": 0 if only the beginning is meant'
        return f"duration {duration} s is less than the {seconds:.2f} s of {name!r}; {remedy}"
    return ""


def _utterance(row: dict[str, Any], paths: list[str], headers: list[_Header]) -> Utterance:
    audio: str | list[str] = paths if isinstance(row["audio_filepath"], list) else paths[0]
    channels = len(paths) if isinstance(audio, list) else headers[0].channels
    offset = float(row.get("offset") or 0.0)
    rest = headers[0].seconds - offset if channels else row.get("duration") or 0.0
    return Utterance(row, audio, offset, float(min(row.get("duration") or rest, rest)), channels)


def _summary(head: str, problems: Sequence[str]) -> str:
    more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([head, *problems[:SHOWN], *more])


def _cut(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
