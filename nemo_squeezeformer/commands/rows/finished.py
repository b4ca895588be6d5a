"""The rows of finished utterances. They go to OUT.partial or to stdout, and their problems go to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from nemo_squeezeformer.commands.rows import transcripts
from nemo_squeezeformer.commands.rows.partial_lines import Row
from nemo_squeezeformer.commands.rows.partial_rows import PartialRows
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance


class Finished:
    """The rows of the finished utterances, in ``rows`` by index.

    Args:
        utterances: all utterances of the input.
        partial: the file for the rows, or None.
        done: the rows of an earlier run, by index.
        strict: raise the first problem as an error.
        line: a function that returns the lines to print for the index of an utterance and its row, or an empty string.
            Without a file for the rows, these lines are printed.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        partial: PartialRows | None,
        done: dict[int, Row],
        strict: bool,
        line: Callable[[int, Row], str] = lambda index, row: "",
    ) -> None:
        self.utterances, self.partial, self.rows = utterances, partial, dict(done)
        self.strict, self.line, self.stdout = strict, line, sys.stdout

    def add(self, rows: Sequence[tuple[int, Row]], whole: bool = True) -> None:
        """Write rows and their problems.

        Args:
            rows: the index and the row of each utterance.
            whole: False if the audio has been interrupted. A later run then transcribes the utterances again.

        Raises:
            UserError: with ``strict``, a row has an error; or the rows cannot be written.
        """
        problems = [row["error"] for _, row in rows if "error" in row]
        if self.strict:
            rows = [(index, row) for index, row in rows if "error" not in row]
        if self.partial:
            self.partial.add([(index, self.utterances[index], row) for index, row in rows], whole)
        else:
            with transcripts.printing(self.stdout):
                lines = [self.line(index, row) for index, row in rows]
                _print([line for line in lines if line], self.stdout)
        self.rows.update(rows)
        if self.strict and problems:
            raise UserError(f"{problems[0]} (or leave out --strict)")
        if not self.partial:
            _print(problems, sys.stderr)

    def in_order(self) -> list[Row]:
        """Return the rows of the finished utterances, in the order of the input."""
        return [self.rows[index] for index in sorted(self.rows)]


def _print(lines: Sequence[str], file: TextIO) -> None:
    from tqdm import tqdm

    for line in lines:
        tqdm.write(line, file=file)  # a progress bar stays below the line
    file.flush()
