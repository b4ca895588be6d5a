"""The format of the output: the option ``--format``, and the checks and the writing of outputs of each format."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.commands.rows import recording_names, transcripts
from nemo_squeezeformer.commands.rows.partial_lines import Row
from nemo_squeezeformer.commands.rows.partial_rows import PartialRows
from nemo_squeezeformer.commands.rows.rendering import FORMATS, SUBTITLES, TIMED, rendered
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--format``."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="jsonl: a JSON object per utterance; txt: path, tab and text of each utterance; srt or vtt: subtitles, in "
        "OUT if its name ends with .srt or .vtt, otherwise in the folder OUT, with a file for each recording; ctm: the "
        "words of all recordings in the columns of NIST (default: srt, vtt or ctm if the name of OUT has this ending, "
        "otherwise jsonl with --output, --timestamps or --confidence, and txt on stdout)",
    )


def choose_format(args: argparse.Namespace) -> None:
    """Set ``args.format`` if the option was not passed, and ``args.timestamps`` if the format needs times."""
    if args.format is None:
        ending = _ending(args.output) if args.output else ""
        rows = args.output or args.timestamps or args.confidence  # a line of text cannot have all results
        args.format = ending if ending in TIMED else "jsonl" if rows else "txt"
    args.timestamps = args.timestamps or args.format in TIMED


def _ending(path: Path) -> str:
    return path.suffix[1:].lower()


def option_with_times(args: argparse.Namespace) -> str:
    """Return the option that needs the times of words."""
    return f"--format {args.format}" if args.format in TIMED else "--timestamps"


def is_folder(args: argparse.Namespace) -> bool:
    """Return True if the output is a folder with a file for each recording."""
    return args.output is not None and args.format in SUBTITLES and _ending(args.output) not in SUBTITLES


def check_output(args: argparse.Namespace) -> None:
    """Raise a UserError if OUT cannot be written. ``transcripts.check_output`` describes the checks of a file.

    A folder that is not empty is replaced only with ``--force``, and only if it has no other files than subtitles.
    """
    folder, output = is_folder(args), args.output
    transcripts.check_output(output, args.force, [args.model, *args.inputs], args.resume, folder)
    if not folder or not os.path.lexists(output):
        return
    if not output.is_dir() or output.is_symlink():
        raise UserError(f"{output} is a file, but the output is a folder of subtitles; choose another --output")
    files = sorted(path for path in output.rglob("*") if not path.is_dir() or path.is_symlink())
    if files and not (args.force or args.resume):
        raise UserError(f"{output} exists; choose another --output, or pass --force to replace the subtitles in it")
    others = [path for path in files if _ending(path) not in SUBTITLES or path.is_symlink()]
    if others:
        raise UserError(f"{output} has other files than subtitles, for example {others[0]}; choose another --output")


def check_recordings(utterances: Sequence[Utterance], args: argparse.Namespace) -> None:
    """Raise a UserError if the utterances do not fit into one output of subtitles."""
    if args.format not in SUBTITLES or is_folder(args):
        return
    count = len(recording_names.by_name(utterances))
    if count > 1:
        given = f"--output {args.output}" if args.output else f"--format {args.format} on stdout"
        raise UserError(
            f"{given} is for the subtitles of one recording, but the inputs have {count} recordings; pass the name of "
            "a folder as --output"
        )
    if args.output is None and len(utterances) > 1:
        raise UserError(
            f"--format {args.format} on stdout is for one utterance, but the inputs have {len(utterances)}; pass "
            f"--output NAME.{args.format}"
        )


def write(path: Path, utterances: Sequence[Utterance], rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Write the output to ``path``, which does not exist.

    Raises:
        OSError: a file cannot be written.
    """
    folder = is_folder(args)
    if folder:
        path.mkdir()
    for name, text in rendered(args.format, utterances, rows, folder).items():
        file = path / name if name else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_bytes(text))


def begin(
    partial: PartialRows | None, utterances: Sequence[Utterance], args: argparse.Namespace, *options: str
) -> tuple[dict[int, Row], int | None]:
    """Begin or continue OUT.partial.

    A file of another format than JSON lines does not say whether it has all rows of the inputs. If OUT exists, and
    OUT.partial does not, ``--resume`` therefore treats OUT as complete.

    Args:
        options: the options on which the rows depend, for example ``--decoder``.

    Returns:
        The finished rows by index, and the exit status if OUT is already complete, otherwise None.

    Raises:
        UserError: ``--resume`` was passed, and OUT is not the output of the inputs.
    """
    if args.format == "jsonl" or partial is None:
        status = transcripts.status_of_complete(partial, utterances, args)
        return ({}, status) if status is not None else (transcripts.begin(partial, utterances, args, *options), None)
    empty = args.output.is_dir() and not any(args.output.iterdir())  # the user has made the folder
    kept = args.resume and not args.force and not partial.replaces and args.output.exists() and not empty
    if kept and not partial.continues:
        partial.remove()
        say(f"{args.output} exists, and {partial.path} does not: an earlier run has finished; there is nothing to do")
        return {}, 0
    done = transcripts.begin(partial, utterances, args, *options)
    if not kept:
        return done, None
    if not is_written(utterances, [done.get(index, {"error": ""}) for index in range(len(utterances))], args):
        raise UserError(
            f"--resume: {args.output} exists, and it is not the output of this run; choose another --output, or pass "
            "--force to overwrite it"
        )
    partial.remove()
    say(f"{args.output} is complete; there is nothing to do")
    return done, int(len(done) < len(utterances))


def is_written(utterances: Sequence[Utterance], rows: Sequence[Row], args: argparse.Namespace) -> bool:
    """Return True if the files of ``args.output`` have the text of the rows."""
    texts = rendered(args.format, utterances, rows, is_folder(args))
    try:
        return all((args.output / name).read_bytes() == _bytes(text) for name, text in texts.items())
    except OSError:
        return False


def _bytes(text: str) -> bytes:
    """Return the bytes of a file. A name in the text can have characters that UTF-8 does not have."""
    return text.encode(errors="backslashreplace")
