"""The page of tables that the measured speeds make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring.forms import FORMS
from benchmarks.measuring.results import read
from benchmarks.measuring.tables import table, timed
from benchmarks.speed.operations import gflops_at
from benchmarks.speed.plan import apart

Row = dict[str, Any]
MEASURED = ("inference", "memory", "training", "training_memory")
INTRODUCTION = """# Speed

Made by `python -m benchmarks.speed`; every figure is in the `.json` files here. Encoders of equal parameters with
random weights, equal ones in all forms of a network. "in-tree" is NeMo 2.7.3's Squeezeformer; ours: as it is built by
default, with `attention="plain"` and after `optimize_for_inference()`; "8x" is our recipe's `rate=8x`; "local" attends
to 128 frames to each side, all others to all frames.

Encoders take turns in one process; medians, with quartiles in brackets where there was more than one turn. Utterances
of a batch last from half the given length to the whole. GFLOPs are those of the plain form, a multiplication and an
addition are two; the share of the peak is theirs in the time measured, of the fastest large matrix product that was
measured with as many threads, so that work saved may bring it above 100 %. Memory is the most above the model and its
input, in a process of its own. A training step is forward and backward, with dropout, without an optimizer."""


def reference(rows: list[Row]) -> str:
    """Whom the others are compared with: in-tree, or where there is none, our plain form."""
    return "in-tree" if any("in-tree" in row["measured"] for row in rows) else "ours, plain"


def names_of(rows: list[Row]) -> list[str]:
    """All encoders of these measurements, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row["measured"]))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def left_out(rows: list[Row]) -> Iterator[str]:
    """Who was left out of which measurements, and why, as items of a list."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        threads = f", {counted(row['threads'], 'thread')}" if "threads" in row else ""
        for name, reason in row["left_out"].items():
            found.setdefault((apart(name)[0], reason), []).append(f"{row['batch']} x {row['seconds']} s{threads}")
    for (name, reason), where in found.items():
        places = "" if len(where) >= len(rows) else f" ({'; '.join(dict.fromkeys(where))})"
        yield f"- {name}: {reason}{places}"


def operations_of(data: Row, name: str, seconds: float) -> float | None:
    """GFLOPs of one utterance."""
    encoder, _ = apart(name)
    points = 3 if FORMS[encoder].exact else 2  # local attention is linear, but for windows that are not full
    for row in data.get("operations", []):
        if encoder in row["measured"]:
            return gflops_at(seconds, row["lengths"][-points:], row["measured"][encoder]["gflops"][-points:])
    return None


def peak_of(data: Row, threads: int, precision: str) -> float | None:
    """GFLOP/s of the fastest matrix product with so many threads."""
    rows = [row for row in data.get("peak", []) if row["threads"] == threads and precision in row["measured"]]
    return max(rows[0]["measured"][precision].values()) if rows else None


def compared(data: Row, row: Row, name: str, base: str) -> str:
    """How many times as fast as the base, and which share of the machine's peak for a single utterance."""
    if name not in row["measured"]:
        return "-"
    took = row["measured"][name]["ms"][1]
    cells = [f"{row['measured'][base]['ms'][1] / took:.2f}x"] if base in row["measured"] else []
    work, peak = operations_of(data, name, row["seconds"]), peak_of(data, row["threads"], apart(name)[1])
    if row["batch"] == 1 and work and peak:
        cells.append(f"{100 * work / (took / 1e3) / peak:.0f} %")
    return ", ".join(cells) or "-"


def encoders(data: Row) -> Iterator[str]:
    for row in data.get("operations", []):
        lengths = sorted({inference["seconds"] for inference in data.get("inference", [])} or row["lengths"])
        head = ["encoder", "parameters", *(f"GFLOPs, {s} s" for s in lengths), "largest difference"]
        rows = []
        for name, measured in row["measured"].items():
            work = [f"{operations_of(data, name, seconds):.1f}" for seconds in lengths]
            difference = f"{measured['difference']:.1e}" if measured.get("difference") else "-"
            rows.append([name, f"{measured['parameters']:,}", *work, difference])
        yield "### Encoders\n\n" + table(head, rows)
        yield "The difference is that of valid frames from the first encoder here of the same network."
    for row in data.get("peak", []):
        for precision, ways in row["measured"].items():
            speeds = ", ".join(f"{way} {speed:.0f}" for way, speed in ways.items())
            yield f"Matrix products, {precision}, {counted(row['threads'], 'thread')}, GFLOP/s: {speeds}."


def inference(data: Row) -> Iterator[str]:
    rows = data.get("inference", [])
    for threads, batch in sorted({(row["threads"], row["batch"]) for row in rows}, key=lambda pair: pair[::-1]):
        group = [row for row in rows if (row["threads"], row["batch"]) == (threads, batch)]
        names, base = names_of(group), reference(group)
        lengths = [f"{row['seconds']} s" for row in group]
        yield f"### Inference, batch {batch}, {counted(threads, 'thread')}"
        times = [[name, *(timed(row["measured"].get(name, {}).get("ms")) for row in group)] for name in names]
        yield table(["encoder, ms", *lengths], times)
        ratios = [[name, *(compared(data, row, name, base) for row in group)] for name in names]
        share = ", share of the peak" if batch == 1 else ""
        yield table([f"times as fast as {base}{share}", *lengths], ratios)


def memory(data: Row) -> Iterator[str]:
    rows = data.get("memory", [])
    if rows:
        lengths = [f"{row['seconds']} s" for row in rows]
        cells = [
            [name, *(f"{row['measured'][name]['MiB']:,.0f}" if name in row["measured"] else "-" for row in rows)]
            for name in names_of(rows)
        ]
        yield "### Memory of inference, batch 1\n\n" + table(["encoder, MiB", *lengths], cells)


def training(data: Row) -> Iterator[str]:
    for row in data.get("training", []):
        measured, base = row["measured"], reference([row])
        cells = [
            [name, timed(held["ms"]), f"{measured[base]['ms'][1] / held['ms'][1]:.2f}x" if base in measured else "-"]
            for name, held in measured.items()
        ]
        yield f"### Training step, {row['batch']} x {row['seconds']} s, {counted(row['threads'], 'thread')}"
        yield table(["encoder", "ms", f"times as fast as {base}"], cells)
    for row in data.get("training_memory", []):
        measured, base = row["measured"], reference([row])
        cells = [
            [name, f"{held['MiB']:,.0f}", f"{held['MiB'] / measured[base]['MiB']:.2f}" if base in measured else "-"]
            for name, held in measured.items()
        ]
        yield f"### Memory of a training step, {row['batch']} x {row['seconds']} s"
        yield table(["encoder", "MiB", f"of what {base} takes"], cells)


def page(folder: Path) -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    for name, data in read(folder).items():
        parts.append(f"## {name}")
        rows = [row for part in data.values() if isinstance(part, list) for row in part]
        commits = sorted({row["commit"] for row in rows})
        parts.append(f"{'. '.join(data['conditions'].values())}. Commit {', '.join(commits)}.")
        pictures = [f"{name}-{what}.png" for what in ("time", "memory") if (folder / f"{name}-{what}.png").exists()]
        parts += [f"![{picture}]({picture})" for picture in pictures]
        for section in (encoders, inference, memory, training):
            parts += section(data)
        reasons = list(left_out([row for part in MEASURED for row in data.get(part, [])]))
        if reasons:
            parts.append("### Left out\n\n" + "\n".join(reasons))
    return "\n\n".join(parts) + "\n"
