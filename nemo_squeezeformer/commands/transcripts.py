"""The output of transcripts: a file that appears only when it is complete, and the word error rate."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.files.outputs import refuse_existing, require_folder, written_whole


def add_output(parser: argparse.ArgumentParser, instead: str = "") -> None:
    """Add the options ``--output`` and ``--force``. ``instead`` ends the help text of ``--output``."""
    add = parser.add_argument
    add("--output", "-o", metavar="OUT", type=Path, help=f"write JSON lines to this file{instead}")
    add("--force", action="store_true", help="overwrite OUT and OUT.partial if they exist")


def partial_of(output: Path) -> Path:
    """Return the path of the file that contains the finished transcripts until OUT is complete."""
    return output.with_name(output.name + ".partial")


def check_output(output: Path | None, force: bool, read: Sequence[str]) -> None:
    """Raise a UserError if OUT is a file in ``read``, if the folder of OUT does not exist, or if a file is in the way.

    A file, link or folder at OUT or OUT.partial is in the way. With ``force``, only a folder is in the way.
    """
    if output is None:
        return
    require_folder(output, f"--output {output}")
    if any(output.resolve() == Path(name).resolve() for name in read):
        raise UserError(f"--output {output} is also an input; choose another name")
    refuse_existing((output, partial_of(output)), force)


def open_partial(output: Path, force: bool) -> TextIO:
    """Create OUT.partial and return the open file. With ``force``, an older file or link of this name is removed.

    A link is never followed, because it can lead to any other file of the user.

    Raises:
        UserError: OUT.partial has appeared since ``check_output``.
    """
    partial = partial_of(output)
    if force:
        partial.unlink(missing_ok=True)
    try:
        return partial.open("x", encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{partial} exists; choose another --output, or pass --force to overwrite it") from error


def finish(output: Path, lines: Sequence[str]) -> None:
    """Write the complete file OUT in one step, then remove OUT.partial."""
    with written_whole(output) as ordered:
        ordered.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial_of(output).unlink()


def discard(stdout: TextIO) -> None:
    """Discard all further output to ``stdout`` after the reader of the pipe, for example ``head``, has closed the pipe.

    Without this function, Python's flush at exit would also fail.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def report_errors(utterances: Sequence[Utterance], texts: Sequence[str]) -> None:
    """Print on stderr the word error rate of all utterances whose manifest rows have a text."""
    from nemo.collections.asr.metrics.wer import word_error_rate_detail

    scored = [index for index, utterance in enumerate(utterances) if isinstance(utterance.row.get("text"), str)]
    pairs = [texts[index] for index in scored], [utterances[index].row["text"] for index in scored]
    if any(pairs[1]):
        wer, words, inserted, deleted, substituted = word_error_rate_detail(*pairs)
        cer = word_error_rate_detail(*pairs, use_cer=True)[0]
        say(
            f"WER {wer:.2%} of {words} words (inserted {inserted:.2%}, deleted {deleted:.2%}, substituted "
            f"{substituted:.2%}), CER {cer:.2%}; {len(scored)} utterances with text, compared without normalization"
        )
