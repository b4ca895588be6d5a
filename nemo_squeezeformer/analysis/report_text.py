"""A report as text: aligned columns, or with rich, where it is there, headings and rates in colour on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

MIB = 2**20


@dataclass(frozen=True)
class Section:
    """A heading, a sentence below it, and rows whose first is the columns' heads; or a drawing's lines."""

    heading: str
    sentence: str = ""
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


def sections(report: dict[str, Any]) -> list[Section]:
    """What is said, in its order."""
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
        return Section("Streaming", f"none: {report['does_not_stream']}")
    rows = [["att_context_size", "latency, ms", "a step every, ms", "caches, MB", "attention's", "convolutions'"]]
    for one in report["streams"]:
        caches = one["cache_bytes"]
        sizes = [sum(caches.values()), caches["attention"], caches["convolution"]]
        cells = [f"{size / 1e6:.2f}" for size in sizes]
        rows.append([str(one["att_context_size"]), str(one["latency_ms"]), str(one["every_ms"]), *cells])
    who = "one stream" if report["batch"] == 1 else f"{report['batch']} streams"
    return Section("Streaming", f"Latency is the audio that a chunk waits for; caches of {who}, float32.", rows)


def _memory(report: dict[str, Any]) -> list[Section]:
    memory = report["memory"]
    if memory is None:
        return []
    kept = memory["weights"] + memory["adam"]
    rows = [
        ["MiB", "weights", "optimizer (Adam)", "encoder, at most", "together"],
        ["inference", *_mib(memory["weights"], 0, memory["inference"], memory["weights"] + memory["inference"])],
        ["training step", *_mib(memory["weights"], memory["adam"], memory["training"], kept + memory["training"])],
    ]
    what = f"{report['batch']} x {report['seconds']:g} s in float32"
    sentence = (
        f"{what}: tensors alive at once on a GPU, gradients among them; counted, not measured. What a decoder, a loss "
        "and the libraries take comes on top; on a CPU ours trains in less."
    )
    return [Section("Memory", sentence, rows)]


def _mib(*sizes: int) -> list[str]:
    return [f"{size / MIB:,.0f}" for size in sizes]


def _notes(report: dict[str, Any]) -> list[Section]:
    return [Section("Notes", lines=report["notes"])] if report["notes"] else []


def write(found: Sequence[Section], file: TextIO) -> None:
    """In colour where ``file`` is a terminal and rich is installed, which NeMo 3.0.0 brings; else as plain text."""
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
    """A section without colour; numbers to the right, as every column but the first has them."""
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
