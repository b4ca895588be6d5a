"""The command line: ``nemo-squeezeformer COMMAND ...`` or ``python -m nemo_squeezeformer COMMAND ...``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import nemo_squeezeformer
from nemo_squeezeformer.commands import COMMANDS
from nemo_squeezeformer.commands.options import with_joined_sizes
from nemo_squeezeformer.process import program
from nemo_squeezeformer.training.mistakes import misspelt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names, and return the exit status, which ``program.run`` describes."""
    return program.run("nemo-squeezeformer", lambda: run_command(argv))


def run_command(argv: Sequence[str] | None) -> int:
    """Parse the arguments, and run the command that they name."""
    parser = build_parser()
    argv = with_joined_sizes(sys.argv[1:] if argv is None else argv)
    first = next(iter(argv), "")
    meant = misspelt.most_similar(first, COMMANDS)
    if meant and first not in COMMANDS:
        parser.error(f"there is no command {first}; did you mean {meant}?")
    args, rest = parser.parse_known_args(argv)
    if any(argument.startswith("-") for argument in rest) or (rest and "overrides" not in args):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse does not assign a positional key=value after an option to overrides
        args.overrides += rest
    return args.main(args)


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser, with one sub-command for each module of ``commands``."""
    parser = argparse.ArgumentParser(prog="nemo-squeezeformer", description=nemo_squeezeformer.__doc__)
    parser.add_argument("--version", action="version", version=nemo_squeezeformer.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = importlib.import_module(f"nemo_squeezeformer.commands.{module}")
        subparser = commands.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(main=command.main)
    return parser


if __name__ == "__main__":
    sys.exit(main())
