"""The length of an MP3 file, from its Xing header or from the headers of all frames (ISO/IEC 11172-3, 13818-3)."""

from __future__ import annotations

import mmap
from typing import NamedTuple

BITRATES = {  # kbit/s of layer III by the index in the frame header: MPEG-1, and MPEG-2 or MPEG-2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the MPEG version
SEARCHED = 4096  # bytes after the ID3 tag in which the first frame must begin


class Length(NamedTuple):
    """The length of an MP3 file.

    Attributes:
        seconds: length of the audio in the file.
        declared: length in the Xing header; without a Xing header, equal to ``seconds``.
        has_header: True if the file has a Xing header.
    """

    seconds: float
    declared: float
    has_header: bool


class _Frame(NamedTuple):
    size: int
    samples: int
    rate: int
    side: int  # bytes of the side information, which come before the Xing header


def mp3_length(path: str) -> Length | None:
    """Return the length of an MP3 file, or None if the length cannot be found.

    libsndfile returns the length of the Xing header also for a file that is cut. Without a Xing header, libsndfile
    estimates the length from the bit rate at the start of the file.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_tag(data)
        for place in range(start, min(start + SEARCHED, len(data) - 3)):
            first = _frame(data, place)
            following = first and _frame(data, place + first.size)
            if first and (following or place + first.size >= len(data)):
                return _from_header(data, place, first) or _from_frames(data, place)
    return None


def _after_tag(data: mmap.mmap) -> int:
    """Return the place after an ID3v2 tag. The size of the tag has seven bits in each of its four bytes."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0)))


def _frame(data: mmap.mmap, place: int) -> _Frame | None:
    """Return the frame of layer III that begins at ``place``, or None."""
    header = data[place : place + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    first, mono, hertz = version == 3, header[3] >> 6 == 3, RATES[version][rate]
    samples = 1152 if first else 576
    size = samples // 8 * 1000 * BITRATES[first][bitrate] // hertz + (header[2] >> 1 & 1)
    return _Frame(size, samples, hertz, (17 if mono else 32) if first else (9 if mono else 17))


def _from_header(data: mmap.mmap, place: int, frame: _Frame) -> Length | None:
    """Return the length from a Xing header with the numbers of frames and bytes, or None."""
    header = data[place + 4 + frame.side : place + 20 + frame.side]
    if len(header) < 16 or header[:4] not in (b"Xing", b"Info") or header[7] & 3 != 3:
        return None
    frames, size = int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")
    declared = frames * frame.samples / frame.rate
    return Length(declared * min(1.0, (len(data) - place) / max(size, 1)), declared, True)


def _from_frames(data: mmap.mmap, place: int) -> Length | None:
    seconds = 0.0
    while (frame := _frame(data, place)) and place + frame.size <= len(data):
        seconds += frame.samples / frame.rate
        place += frame.size
    # A tag can follow the last frame. If more bytes follow, the frames are damaged, and the library finds the length.
    return Length(seconds, seconds, False) if len(data) - place < SEARCHED else None
