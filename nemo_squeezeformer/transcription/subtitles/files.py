"""The text of subtitle files.

pysubs2 1.8 writes SRT and WebVTT too, but it does not escape ``&`` and ``<`` in WebVTT.
"""

from __future__ import annotations

from collections.abc import Iterable

from nemo_squeezeformer.transcription.subtitles.cues import Cue

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def srt(cues: Iterable[Cue]) -> str:
    """Return the text of an SRT file (SubRip)."""
    return "".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_text(cue)}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """Return the text of a WebVTT file (https://www.w3.org/TR/webvtt1)."""
    blocks = [f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{_text(cue).translate(ESCAPES)}\n" for cue in cues]
    return "\n".join(["WEBVTT\n", *blocks])


def _text(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
