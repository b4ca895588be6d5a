"""The command line of a benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.measuring.recordings import named_manifest
from benchmarks.measuring.results import RESULTS


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose usage line is ``python -m module``. The help keeps the line breaks of ``description``."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_trainings(parser: argparse.ArgumentParser, folder: str, vocabulary: int, steps: int, seeds: int) -> None:
    """Add the options of trainings that are compared: the data, the length of a training, the seeds and the folders.

    Args:
        folder: the folder of the comparison, in the results and in ``build``.
        vocabulary: default number of sub-words.
        steps: default number of optimizer steps.
        seeds: default number of seeds.
    """
    parser.add_argument("name", help="the name of the data or of the question on the page")
    parser.add_argument("--train", nargs="+", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--test", nargs="*", type=named_manifest, default=[])
    parser.add_argument("--vocabulary", type=int, default=vocabulary)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--output", type=Path, default=RESULTS / folder)
    parser.add_argument("--work", type=Path, default=Path("build") / folder)
