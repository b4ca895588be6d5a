"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
import json


def describe(parser: argparse.ArgumentParser, description: str) -> None:
    """Has ``--help`` print the description as it is written."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description


def add_model(parser: argparse.ArgumentParser) -> None:
    """``MODEL``; ``inputs.check_model`` and ``models.load_model`` take it."""
    parser.add_argument("model", metavar="MODEL", help="a .nemo file, or the name of a pretrained model to be fetched")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``, for ``inputs.chosen_device``."""
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where there is one")


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """``--verbose``, for ``inputs.quiet``."""
    parser.add_argument("--verbose", action="store_true", help="show NeMo's log and all warnings")


def add_transcribing(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--decoder``, ``--channel`` and ``--verbose``."""
    add = parser.add_argument
    add_device(parser)
    add("--decoder", choices=("ctc", "rnnt"), help="which decoder of a hybrid model (default: its own choice)")
    add(
        "--channel",
        type=_channel,
        default="average",
        metavar="average|N",
        help="of several: the average, or one, from 0",
    )
    add("--verbose", action="store_true", help="show NeMo's log and warnings, and tracebacks of failed downloads")


def positive(text: str) -> int:
    """The type of an option that counts."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def context_size(text: str) -> list[int]:
    """The type of ``--att-context-size``."""
    try:
        size = json.loads(text if text.startswith("[") else f"[{text}]")
    except ValueError:
        size = None
    if not isinstance(size, list) or len(size) < 2 or not all(type(frames) is int for frames in size):
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of frames to the left and right, as "[156, 11]"')
    return size


def _channel(text: str) -> str | int:
    if text != "average" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'average' nor a channel number from 0")
    return text if text == "average" else int(text)
