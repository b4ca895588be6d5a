"""Markdown tables, and the format of times in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head(names: Sequence[str]) -> str:
    """Return the first two lines of a table: the header and the separator."""
    return f"{line(names)}\n{line(['---'] * len(names))}"


def table(names: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join([head(names), *map(line, rows)])


def milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"


def timed(ms: Sequence[float] | None) -> str:
    """Return the median, with the quartiles in brackets if they differ.

    Args:
        ms: Lower quartile, median and upper quartile in milliseconds. None gives ``-``.
    """
    if ms is None:
        return "-"
    low, middle, high = map(milliseconds, ms)
    return f"{middle} ({low}-{high})" if ms[0] < ms[2] else middle
