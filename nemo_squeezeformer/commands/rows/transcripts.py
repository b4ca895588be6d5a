"""The output of the commands that transcribe: the rows, the file OUT, and the report of errors."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from nemo_squeezeformer.commands import inputs
from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.commands.rows.partial_lines import Row, file_state
from nemo_squeezeformer.commands.rows.partial_rows import PartialRows, partial_of
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_rows import summary
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.files.outputs import refuse_existing, require_folder
from nemo_squeezeformer.process.consoles import discard

RESULTS = ("pred_text", "timestamps", "word_confidence", "error")  # fields that a command adds to a row


def add_output(parser: argparse.ArgumentParser, instead: str = "", what: str = "write JSON lines to this file") -> None:
    """Add the options for OUT and for bad recordings.

    Args:
        instead: the end of the help text of ``--output``.
        what: the beginning of the help text of ``--output``.
    """
    add = parser.add_argument
    add("--output", "-o", metavar="OUT", type=Path, help=f"{what}{instead}")
    add("--force", action="store_true", help="overwrite OUT and OUT.partial if they exist")
    add(
        "--resume",
        action="store_true",
        help="continue an interrupted run with the rows in OUT.partial; the inputs and the options must be the same",
    )
    add(
        "--strict",
        action="store_true",
        help="check all inputs first, and stop at the first recording that cannot be read (default: the row of the "
        "recording gets the field error, and the exit status is 1)",
    )


def check_output(
    output: Path | None, force: bool, read: Sequence[str], resume: bool = False, folder: bool = False
) -> None:
    """Raise a UserError if OUT is a file in ``read``, if the folder of OUT does not exist, or if a file is in the way.

    A file, link or folder at OUT is in the way. With ``force``, only a folder is in the way. With ``resume``,
    ``status_of_complete`` decides about a file at OUT. ``PartialRows`` checks OUT.partial. If the output is a
    ``folder``, nothing at OUT is in the way.
    """
    if output is None:
        if resume:
            raise UserError("--resume continues the file OUT.partial; pass --output OUT, as in the interrupted run")
        return
    if not output.name:
        raise UserError(f"--output {output} is a folder; name a file or a new folder")
    require_folder(output, f"--output {output}")
    resolved = {Path(name).resolve() for name in read}
    for path in (output, partial_of(output)):
        if path.resolve() in resolved:
            raise UserError(f"--output {output}: {path} is also an input; choose another name")
    if not folder:
        refuse_existing((output,), force or (resume and output.is_file()))


@contextlib.contextmanager
def opened_partial(args: argparse.Namespace) -> Iterator[PartialRows | None]:
    """Yield the open file OUT.partial, or None without ``--output``. At the end, close the file.

    If the block raises an exception, the message says how many rows are in OUT.partial.
    """
    if args.output is None:
        yield None
        return
    partial = PartialRows(args.output, args.force, args.resume)
    try:
        yield partial
    except KeyboardInterrupt as interruption:
        partial.close()
        raise type(interruption)(partial.kept or "no utterance is done") from None
    except UserError as error:
        partial.close()
        if partial.kept:
            raise UserError(f"{error}; {partial.kept}") from error
        raise
    except BaseException:
        partial.close()
        if partial.kept:
            say(partial.kept)
        raise
    finally:
        partial.close()


def begin(
    partial: PartialRows | None, utterances: Sequence[Utterance], args: argparse.Namespace, *options: str
) -> dict[int, Row]:
    """Begin or continue OUT.partial, and return the finished rows by index.

    Args:
        options: the options on which the rows depend, for example ``--decoder``.
    """
    if partial is None:
        return {}
    values = {option: vars(args)[option.strip("-").replace("-", "_")] for option in options}
    if values.get("--lm"):
        values["--lm"] = file_state(values["--lm"])
    paths = [os.path.abspath(name) for name in args.inputs]
    partial.begin(utterances, {"MODEL": file_state(args.model), "inputs": paths, **values})
    if args.resume:
        say(f"--resume: {len(partial.rows)} of {len(utterances)} utterances are done")
    return partial.rows


def status_of_complete(
    partial: PartialRows | None, utterances: Sequence[Utterance], args: argparse.Namespace
) -> int | None:
    """Return the exit status if OUT is already complete, or None if there is something to do.

    Raises:
        UserError: ``--resume`` was passed, and the rows of OUT are not the rows of the utterances.
    """
    if partial is None or not args.resume or args.force or partial.replaces or not args.output.exists():
        return None
    try:
        rows = [json.loads(line) for line in args.output.read_bytes().splitlines()]
        same = [without_results(row) for row in rows] == [without_results(utterance.row) for utterance in utterances]
    except (ValueError, RecursionError, AttributeError, OSError):
        same = False
    if not same:
        raise UserError(
            f"--resume: {args.output} exists, and its rows are not the rows of the inputs; choose another --output, "
            "or pass --force to overwrite it"
        )
    partial.remove()
    failed = sum("error" in row for row in rows)
    say(f"{args.output} is complete: {len(rows)} rows, {failed} of them with an error; there is nothing to do")
    return 1 if failed else 0


def without_results(row: Mapping[str, Any]) -> Row:
    """Return the fields of a row that come from the manifest."""
    return {name: value for name, value in row.items() if name not in RESULTS}


def row_of(utterance: Utterance, **results: Any) -> Row:
    """Return the row of an utterance with new results. Results of an earlier run in the manifest are dropped."""
    return {**without_results(utterance.row), **results}


def read_inputs(args: argparse.Namespace) -> list[Utterance]:
    """Return the utterances of the inputs. An utterance that cannot be used has a ``problem``.

    Raises:
        UserError: a manifest is missing, empty or not text, a folder has no audio files, or no utterance can be used.
            With ``--strict``, some utterances cannot be used.
    """
    utterances = inputs.utterances(args.inputs, args.strict)
    if not args.strict:
        utterances = [_with_channel(utterance, args.channel) for utterance in utterances]
    usable(utterances)
    inputs.check_channels(utterances, args.channel)
    return utterances


def _with_channel(utterance: Utterance, channel: str | int) -> Utterance:
    if isinstance(channel, str) or not 1 < utterance.channels <= channel:
        return utterance
    return dataclasses.replace(utterance, problem=inputs.no_channel(utterance, channel), duration=0.0, channels=0)


def usable(utterances: Sequence[Utterance]) -> list[int]:
    """Return the indices of the utterances that can be used.

    Raises:
        UserError: no utterance can be used.
    """
    good = [index for index, utterance in enumerate(utterances) if not utterance.problem]
    if not good:
        problems = [utterance.problem for utterance in utterances]
        raise UserError(summary(f"{len(problems)} of {len(problems)} utterances cannot be used:", problems))
    return good


@contextlib.contextmanager
def printing(stdout: TextIO) -> Iterator[None]:
    """Raise a UserError if the block cannot write to ``stdout``, for example because the disk is full.

    Raises:
        BrokenPipeError: the reader of the pipe has closed the pipe.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(stdout)
        raise UserError(f"stdout cannot be written ({error.strerror}); free space, or choose another place") from error


def report_problems(problems: Sequence[str], total: int) -> int:
    """Print on stderr the first problems and their number. Return the exit status: 1 if there is a problem."""
    if not problems:
        return 0
    say(summary(f"{len(problems)} of {total} utterances could not be read:", problems))
    return 1


def report_errors(rows: Sequence[Row]) -> None:
    """Print on stderr the word error rate of all rows that have a text and no error."""
    from nemo.collections.asr.metrics.wer import word_error_rate_detail

    with_text = [row for row in rows if isinstance(row.get("text"), str)]
    scored = [row for row in with_text if "error" not in row]
    pairs = [row["pred_text"] for row in scored], [row["text"] for row in scored]
    if any(pairs[1]):
        wer, words, inserted, deleted, substituted = word_error_rate_detail(*pairs)
        cer = word_error_rate_detail(*pairs, use_cer=True)[0]
        left_out = len(with_text) - len(scored)
        say(
            f"WER {wer:.2%} of {words} words (inserted {inserted:.2%}, deleted {deleted:.2%}, substituted "
            f"{substituted:.2%}), CER {cer:.2%}; {len(scored)} utterances with text, compared without normalization"
            + (f"; {left_out} utterances with an error are left out" if left_out else "")
        )
