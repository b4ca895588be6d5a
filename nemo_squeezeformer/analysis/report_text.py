"""The report of `info` as text with aligned columns. On a terminal, the text has colors if rich is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

MIB = 2**20


@dataclass(frozen=True)
class Section:
    """A section of the text: a heading, a sentence, and either a table or lines.

    The first entry of ``rows`` is the header of the table. ``lines`` are printed without changes.
    """

    heading: str
    sentence: str = ""
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


def sections(report: dict[str, Any]) -> list[Section]:
    """Return the sections of the text, in the order in which they are printed."""
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    found = [Section(report["name"], f"{report['model'] or 'encoder'}: {report['encoder']}, {settings}".rstrip(", "))]
    if report["drawing"]:
        found.append(Section("Frame rates", lines=report["drawing"]))
    return [*found, _parts(report), _streams(report), *_memory(report), *_notes(report)]


def _parts(report: dict[str, Any]) -> Section:
    rows = [["", "ms a frame", "parameters", f"GFLOPs, {report['seconds']:g} s"]]
    for part in report["parts"]:
        ms, count = part["frame_ms"], part["gflops"]
        rows.append([part["name"], "" if ms is None else f"{ms:g}", f"{part['parameters']:,}", _gflops(count)])
    rows.append(["encoder", "", f"{report['parameters']['encoder']:,}", _gflops(report["gflops"])])
    rows += [[part["name"], "", f"{part['parameters']:,}", ""] for part in report["around_the_encoder"]]
    if report["parameters"]["model"] is not None:
        rows.append(["model", "", f"{report['parameters']['model']:,}", ""])
    return Section("Parts", "A multiplication and an addition are two operations.", rows)


def _gflops(count: float | None) -> str:
    return "-" if count is None else f"{count:.2f}"


def _streams(report: dict[str, Any]) -> Section:
    if not report["streams"]:
        return Section("Streaming", f"The encoder does not stream: {report['does_not_stream']}")
    rows = [["att_context_size", "latency, ms", "step, ms", "caches, MB", "attention, MB", "convolution, MB"]]
    for one in report["streams"]:
        caches = one["cache_bytes"]
        sizes = [sum(caches.values()), caches["attention"], caches["convolution"]]
        cells = [f"{size / 1e6:.2f}" for size in sizes]
        rows.append([str(one["att_context_size"]), str(one["latency_ms"]), str(one["every_ms"]), *cells])
    who = "one stream" if report["batch"] == 1 else f"{report['batch']} streams"
    return Section(
        "Streaming", f"The latency is the audio that a chunk waits for. The caches are for {who} in float32.", rows
    )


def _memory(report: dict[str, Any]) -> list[Section]:
    memory = report["memory"]
    if memory is None:
        return []
    kept = memory["weights"] + memory["adam"]
    rows = [
        ["MiB", "weights", "optimizer (Adam)", "encoder, peak", "sum"],
        ["inference", *_mib(memory["weights"], 0, memory["inference"], memory["weights"] + memory["inference"])],
        ["training step", *_mib(memory["weights"], memory["adam"], memory["training"], kept + memory["training"])],
    ]
    what = f"{report['batch']} x {report['seconds']:g} s in float32"
    sentence = (
        f"The peak memory of the tensors on a GPU for {what}, with gradients in training. The numbers are counted, not "
        "measured. The decoder, the loss and the libraries need more memory. On a CPU the encoder of this package "
        "trains with less memory."
    )
    return [Section("Memory", sentence, rows)]


def _mib(*sizes: int) -> list[str]:
    return [f"{size / MIB:,.0f}" for size in sizes]


def _notes(report: dict[str, Any]) -> list[Section]:
    return [Section("Notes", lines=report["notes"])] if report["notes"] else []


def write(found: Sequence[Section], file: TextIO) -> None:
    """Write the sections: in color if ``file`` is a terminal and rich is installed, otherwise as plain text.

    NeMo 3.0.0 installs rich.
    """
    if file.isatty():
        try:
            import rich  # noqa: F401
        except ImportError:
            pass
        else:
            return _write_rich(found, file)
    print("\n\n".join(map(plain, found)), file=file)
    return None


def plain(section: Section) -> str:
    """Return a section as text without color. All columns except the first are right-aligned."""
    lines = [section.heading, *([section.sentence] if section.sentence else []), *section.lines]
    widths = [max(map(len, column)) for column in zip(*section.rows)]
    for first, *others in section.rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _write_rich(found: Sequence[Section], file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False)
    for section in found:
        console.print(Text(section.heading, style="bold cyan"))
        if section.sentence:
            console.print(Text(section.sentence, style="dim"))
        for line in section.lines:
            rate, gap, rest = line.partition("ms  ")
            text = Text(rate + gap, style="green") + Text(rest) if gap else Text(line)
            console.print(text, no_wrap=True, overflow="ignore", crop=False)
        if section.rows:
            head, *rows = section.rows
            table = Table(box=None, pad_edge=False, header_style="bold")
            for i, name in enumerate(head):
                table.add_column(Text(name), justify="right" if i else "left")
            for row in rows:
                table.add_row(*map(Text, row), style="bold" if row[0] in ("encoder", "model") else "")
            console.print(table)
        console.print()
