"""The command line of a benchmark."""

from __future__ import annotations

import argparse


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose usage line is ``python -m module``. The help keeps the line breaks of ``description``."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
