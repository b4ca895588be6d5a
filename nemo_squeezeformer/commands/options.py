"""The options that several commands share, and the functions that parse the values of options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

CONTEXT = "--att-context-size"


def describe(parser: argparse.ArgumentParser, description: str) -> None:
    """Set the description of a command. ``--help`` prints the description with unchanged line breaks."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``MODEL`` for ``inputs.check_model`` and ``models.load_model``."""
    accepted = ".nemo file, checkpoint (.ckpt), or name of a pretrained model to fetch"
    parser.add_argument("model", metavar="MODEL", help=accepted)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--device`` for ``inputs.chosen_device``."""
    add = parser.add_argument
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="device (default: cuda if available, otherwise cpu)",
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--verbose`` for ``inputs.quiet``."""
    parser.add_argument("--verbose", action="store_true", help="show NeMo's log and all warnings")


def add_transcribing(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--device``, ``--decoder``, ``--channel`` and ``--verbose``."""
    add = parser.add_argument
    add_device(parser)
    add("--decoder", choices=("ctc", "rnnt"), help="decoder of a hybrid model (default: the model's own choice)")
    add(
        "--channel",
        type=_channel,
        default="average",
        metavar="average|N",
        help="for audio with several channels: the average of the channels, or the number of a channel, from 0 "
        "(default: average)",
    )
    add("--verbose", action="store_true", help="show NeMo's log, all warnings, and tracebacks of failed downloads")


def add_context(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--latency`` and ``--att-context-size`` for ``contexts.choose_context``."""
    context = parser.add_mutually_exclusive_group()
    context.add_argument(
        "--latency",
        type=positive,
        metavar="MS",
        help="latency, the length of a chunk in milliseconds (default: the model's setting)",
    )
    context.add_argument(
        CONTEXT,
        type=context_size,
        metavar="LIST",
        help='left context and look-ahead in encoder frames, which determine the latency, for example "[156, 11]"',
    )


def number(text: str) -> float:
    """Parse the value of an option that must be a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def whole_number(text: str) -> int:
    """Parse the value of an option that must be an integer."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def positive(text: str) -> int:
    """Parse the value of an option that must be a positive integer."""
    found = whole_number(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return found


def not_negative(text: str) -> int:
    """Parse the value of an option that must be an integer from 0."""
    found = whole_number(text)
    if found < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return found


def with_joined_sizes(arguments: Sequence[str]) -> list[str]:
    """Join ``--att-context-size`` and its value with ``=``. Without ``=``, argparse takes ``-1,-1`` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == CONTEXT:
            joined[-1] = f"{CONTEXT}={argument}"
        else:
            joined.append(argument)
    return joined


def context_size(text: str) -> list[int]:
    """Parse the value of ``--att-context-size``, for example ``156,11`` or ``[156, 11]``."""
    try:
        size = json.loads(text if text.startswith("[") else f"[{text}]")
    except ValueError:
        size = None
    if not isinstance(size, list) or len(size) < 2 or not all(type(frames) is int for frames in size):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a list of frames to the left and right, for example "[156, 11]"'
        )
    return size


def _channel(text: str) -> str | int:
    if text != "average" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'average' nor a channel number from 0")
    return text if text == "average" else int(text)
