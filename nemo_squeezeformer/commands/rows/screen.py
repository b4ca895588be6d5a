"""The display of the texts of streams: one updated line on a terminal, and plain lines otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, TextIO

from nemo_squeezeformer.commands.rows import transcripts
from nemo_squeezeformer.transcription.subtitles.words import columns

SHOWN = 200  # columns of a text that is not final


class Screen:
    """The lines of several streams.

    Args:
        stdout: the file that gets the lines.
        names: the name of each stream. With several streams, each line begins with the name.
    """

    def __init__(self, stdout: TextIO, names: Sequence[Any]):
        self.stdout, self.terminal = stdout, stdout.isatty()
        self.names = [f"{name}\t" if len(names) > 1 else "" for name in names]
        self.shown = [""] * len(names)  # the last text of each stream

    def show(self, heard: Any) -> None:
        """Show the words and utterances that are complete, and the text. ``heard`` is a ``Heard`` of the player."""
        name, clear = self.names[heard.index], "\r\x1b[K" if self.terminal else ""
        lines = [f"{clear}{name}{_timed(row)}\n" for row in heard.rows]
        if heard.final:
            mark = "" if self.terminal else "final\t"
            lines.append(f"{clear}{name}{mark}{heard.text}\n")
        elif self.terminal:
            name = name.replace("\t", ": ")
            lines.append(clear + name + _tail(heard.text, shutil.get_terminal_size().columns - columns(name) - 1))
        elif heard.text != self.shown[heard.index]:
            lines.append(f"{name}{heard.seconds:.2f}\t{_tail(heard.text, SHOWN)}\n")
        self.shown[heard.index] = heard.text
        with transcripts.printing(self.stdout):
            self.stdout.write("".join(lines))
            self.stdout.flush()


def _timed(row: dict[str, Any]) -> str:
    """Return a line with the kind of the row (``word`` or ``utterance``), its times in seconds, and its text."""
    kind = "word" if "word" in row else "utterance"
    return f"{kind}\t{row['start']:.2f}\t{row['end']:.2f}\t{row[kind]}"


def _tail(text: str, width: int) -> str:
    """Return the end of a text, after an ellipsis. Its width is at most ``width`` columns.

    The time does not grow with the length of the text.
    """
    if width < 1:
        return ""
    if len(text) <= width and columns(text) <= width:  # a character has at least one column
        return text
    end, left = len(text), width - 1
    while end and columns(text[end - 1]) <= left:
        left -= columns(text[end - 1])
        end -= 1
    return "…" + text[end:]
