"""The command line of a benchmark."""

from __future__ import annotations

import argparse


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """One that says how ``module`` is run, and shows its docstring line by line."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
