"""Functions that read NeMo manifests and audio files as utterances, and compare each row with its audio file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio.audio_file import AUDIO_EXTENSIONS as AUDIO_EXTENSIONS
from nemo_squeezeformer.files.audio.headers import Header, read_headers
from nemo_squeezeformer.files.audio.length import slack
from nemo_squeezeformer.files.manifest_rows import cut, parsed_rows, refuse, summary
from nemo_squeezeformer.files.manifest_rows import read_rows as read_rows

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
        channels: number of channels; 0 if the utterance cannot be used.
        problem: the reason why the utterance cannot be used, with the manifest and the line; empty for a good
            utterance.
        rate: the sample rate of the file in Hz; 0 if the utterance cannot be used.
    """

    row: dict[str, Any]
    audio: str | list[str]
    offset: float
    duration: float
    channels: int
    problem: str = ""
    rate: int = 0


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
    for_training: bool = True,
) -> list[Utterance]:
    """Read a manifest and compare every row with the header of the audio file.

    Args:
        manifest: path of a file with one JSON object per line. The manifest of a tarred data set is not supported,
            because the audio is inside tar files. A manifest in an object store (``s3://...``) is not read, and no
            utterances are returned.
        required: fields that every row must have. Training needs ``duration``. Transcription does not need
            ``duration``.
        strict: if False, a row that cannot be used is an utterance with a ``problem``, at the place of the row.
        for_training: if True, a row that NeMo's data sets drop or do not read cannot be used: a text that is null, and
            audio in a format that only ``open_audio`` reads.

    Raises:
        UserError: the manifest is missing, empty or not text, or ``strict`` is True and some rows cannot be used. A row
            cannot be used in three cases: the row is not JSON, lacks a field or has a field of a wrong type; the audio
            is missing, unreadable, cut or empty; the offset or the duration does not fit the audio file. One error
            covers the whole manifest. The error gives the number of bad rows, and the line, the value and the remedy of
            the first bad rows.
    """
    if "://" in os.fspath(manifest):
        return []
    rows = list(parsed_rows(manifest, dict.fromkeys(["audio_filepath", *required]), for_training))
    paths = [[] if row.problem else [audio_path(name, manifest) for name in _names(row.fields)] for row in rows]
    headers = read_headers((path for each in paths for path in each), for_training)
    utterances, problems = list[Utterance](), list[str]()
    for row, each in zip(rows, paths):
        found = [headers[path] for path in each]
        problem = row.problem or next((header.problem for header in found if header.problem), "")
        problem = problem or _segment_problem(row.fields, found[0], for_training)
        if problem:
            problems.append(f"line {row.number}: {problem}")
            utterances.append(_unusable(row.fields, f"{manifest}, line {row.number}: {problem}"))
        else:
            utterances.append(_utterance(row.fields, each, found))
    if strict:
        refuse(manifest, problems, len(rows))
    return utterances


def read_files(paths: Sequence[str | os.PathLike[str]], strict: bool = True) -> list[Utterance]:
    """Return one utterance for each audio file. The utterance is the whole file.

    Args:
        strict: if False, a file that cannot be used is an utterance with a ``problem``.

    Raises:
        UserError: ``strict`` is True and some files cannot be used. One error covers all files.
    """
    names = [os.fspath(path) for path in paths]
    headers = read_headers(names)
    problems = [headers[name].problem for name in names if headers[name].problem]
    if problems and strict:
        raise UserError(summary(f"{len(problems)} of {len(names)} audio files cannot be used", problems))
    return [
        _unusable(row, headers[name].problem) if headers[name].problem else _utterance(row, [name], [headers[name]])
        for name, row in ((name, {"audio_filepath": _readable(name)}) for name in names)
    ]


def _readable(name: str) -> str:
    """Return a file name that can be written as UTF-8. A byte that is not UTF-8 becomes, for example, ``\\\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _names(row: dict[str, Any]) -> list[str]:
    audio = row["audio_filepath"]
    return audio if isinstance(audio, list) else [audio]


def _segment_problem(row: dict[str, Any], header: Header, for_training: bool) -> str:
    """Return the problem of a row whose offset or duration does not fit the audio file.

    Return an empty string if the offset and the duration fit. A row with an offset may end anywhere in the file.
    """
    duration, offset, seconds = row.get("duration"), row.get("offset") or 0.0, header.seconds
    name, start = cut(str(row["audio_filepath"])), cut(f"offset {offset}", 30)
    if offset >= seconds:
        return f"{start} s is past the end of {name!r}, which has {seconds:.2f} s; correct the offset"
    if offset and for_training and not header.seekable:
        return f"{start} s: NeMo cannot seek in the format of {name!r}; convert the file to flac or wav with PCM"
    if duration is None:
        return ""
    if offset + duration > seconds + slack(seconds):
        length = cut(f"duration {duration}", 30)
        end = f"{start} s + {length} s" if offset else f"{length} s"
        return f"{end} is more than the {seconds:.2f} s of {name!r}; correct the row"
    if row.get("offset") is None and duration < seconds - slack(seconds):
        remedy = 'correct the duration, or add "offset": 0 to use only the beginning'
        return f"duration {duration} s is less than the {seconds:.2f} s of {name!r}; {remedy}"
    return ""


def _utterance(row: dict[str, Any], paths: list[str], headers: list[Header]) -> Utterance:
    audio: str | list[str] = paths if isinstance(row["audio_filepath"], list) else paths[0]
    channels = len(paths) if len(paths) > 1 else headers[0].channels
    offset = float(row.get("offset") or 0.0)
    rest = headers[0].seconds - offset
    duration = float(min(row.get("duration") or rest, rest))
    return Utterance(row, audio, offset, duration, channels, rate=headers[0].rate)


def _unusable(row: dict[str, Any], problem: str) -> Utterance:
    audio = row.get("audio_filepath", "")
    return Utterance(row, audio if isinstance(audio, (str, list)) else "", 0.0, 0.0, 0, problem)
