"""The headers of audio files, read in parallel threads."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio.audio_file import AV_EXTENSIONS, AudioFile, open_audio
from nemo_squeezeformer.files.audio.length import refuse_cut, slack
from nemo_squeezeformer.files.audio.mp3_length import mp3_length

LARGE = 5_000  # minimum number of files for a progress bar

# The lines of libsndfile's log that say that a file ends before the length in its header.
SIZE = re.compile(r"^\s*(?:RIFF|RIFX|RF64|riff|FORM|Riff size|data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.M)
CUT = re.compile(r"seems to be truncated|Seems to be a truncated file|lacks an end-of-stream bit\.\nOgg ?: Junk after")
UNKNOWN_SIZES = (2**31, 2**32, 2**64)  # a program that writes to a pipe writes a size near these numbers


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an audio file.

    Attributes:
        seconds: the length.
        channels: the number of channels; 0 if the file cannot be used.
        seekable: True if soundfile, and with it NeMo, can seek in the file.
        problem: the reason why the file cannot be used; empty for a good file.
        rate: the sample rate in Hz; 0 if the file cannot be used.
    """

    seconds: float = 0.0
    channels: int = 0
    seekable: bool = True
    problem: str = ""
    rate: int = 0


def read_headers(paths: Iterable[str], only_soundfile: bool = False) -> dict[str, Header]:
    """Return the header of each file. A file that several rows refer to is read once.

    Args:
        only_soundfile: if True, a file that only PyAV reads has a problem. NeMo reads audio with soundfile.
    """
    from tqdm import tqdm

    unique = list(dict.fromkeys(paths))
    # Most of the time is waiting for the disk or the network, so the headers are read in parallel threads.
    with ThreadPool(min(32, 4 * (os.cpu_count() or 1))) as pool:
        quiet = len(unique) < LARGE or not sys.stderr.isatty()
        found = tqdm(
            pool.imap(partial(read_header, only_soundfile=only_soundfile), unique, chunksize=64),
            "checking audio",
            len(unique),
            disable=quiet,
            unit=" files",
        )
        return dict(zip(unique, found))


def read_header(path: str, only_soundfile: bool = False) -> Header:
    """Return the header of an audio file, or the problem of the file."""
    if "://" in path:
        return Header(problem=f"audio {path!r} is an address and not a file; copy the file to this machine")
    extension = os.path.splitext(path)[1].lower()
    if only_soundfile and extension in AV_EXTENSIONS and os.path.isfile(path):
        problem = f"audio file {path!r} has the format {extension}, which NeMo does not read; convert it to flac or wav"
        return Header(problem=problem)
    try:
        with open_audio(path) as file:
            if file.frames == 0:
                problem = f"audio file {path!r} has a header but no samples; create it again or remove it"
                return Header(problem=problem)
            seconds = file.frames / file.samplerate
            _refuse_cut(file, seconds, extension)
            return Header(seconds, file.channels, file.seekable, rate=file.samplerate)
    except UserError as error:
        return Header(problem=str(error))


def _refuse_cut(file: AudioFile, seconds: float, extension: str) -> None:
    """Raise UserError if the header says that the file is longer than the file is."""
    log = file.log
    if "should be" in log:
        for declared, found in ((int(declared), int(found)) for declared, found in SIZE.findall(log)):
            unknown = any(abs(declared - size) < 2**16 for size in UNKNOWN_SIZES)
            if found and declared > found and not unknown:
                refuse_cut(file.name, seconds, seconds * declared / found)
    if CUT.search(log):
        raise UserError(
            f"audio file {file.name!r} is cut: the file ends after {seconds:.2f} s, before the end that its format "
            "marks; copy the file again from its source"
        )
    if extension in (".sph", ".nist") and (samples := _nist_samples(file.name)):
        refuse_cut(file.name, seconds, samples / file.samplerate)
    if extension == ".mp3" and (length := mp3_length(file.name)):
        refuse_cut(file.name, length.seconds, length.declared)
        if not length.has_header and abs(length.seconds - seconds) > slack(seconds):
            raise UserError(
                f"audio file {file.name!r} has {length.seconds:.2f} s, but soundfile reads {seconds:.2f} s, because "
                "the bit rate varies and the file has no Xing header; write the header with: ffmpeg -i FILE -c copy "
                "NEW.mp3"
            )


def _nist_samples(path: str) -> int:
    """Return the number of samples per channel in the header of a NIST SPHERE file, or 0."""
    with open(path, "rb") as file:
        found = re.search(rb"^sample_count -i (\d{1,12})$", file.read(1024), re.M)
    return int(found[1]) if found else 0
