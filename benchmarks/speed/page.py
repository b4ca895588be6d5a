"""The page of results of the speed benchmark."""

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

Made by `python -m benchmarks.speed`. The `.json` files in this folder have all numbers. The encoders have nearly equal
numbers of parameters and random weights. Encoders of the same network have equal weights.

The names of the encoders:

- "in-tree" is NeMo 2.7.3's Squeezeformer.
- "ours" is the Squeezeformer of this project with its default settings.
- "plain" means `attention="plain"`.
- "optimised" means after `optimize_for_inference()`.
- "8x" is the setting `rate=8x` of our recipes: a frame lasts 80 ms instead of 40 ms.
- "local" attends to 128 frames to each side. All other encoders attend to all frames.
- "SDPA" means `use_pytorch_sdpa=True`.

How they are measured:

- Time: the encoders take turns in one process. The tables have the median, with the quartiles in brackets if there was
  more than one turn. The lengths of the utterances of a batch go from half of the given length to the whole length.
- GFLOPs: the operations of the encoder. Our encoders with full attention are counted with `attention="plain"`. A
  multiplication and an addition count as two operations.
- Share of the peak: these GFLOPs, divided by the measured time and by the speed of the fastest large matrix product
  with the same number of threads. Encoders that save operations may have a share above 100 %.
- Memory: the peak above the model and its input, in a separate process.
- Training step: forward and backward pass with dropout, without an optimizer."""


def reference(rows: list[Row]) -> str:
    """Return the encoder with which the others are compared: in-tree, or our plain encoder if in-tree is missing."""
    return "in-tree" if any("in-tree" in row["measured"] for row in rows) else "ours, plain"


def names_of(rows: list[Row]) -> list[str]:
    """Return the names of all encoders in these measurements, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row["measured"]))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def left_out(rows: list[Row]) -> Iterator[str]:
    """Yield Markdown list items that name the encoders left out, the reasons and the measurements."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        threads = f", {counted(row['threads'], 'thread')}" if "threads" in row else ""
        for name, reason in row["left_out"].items():
            found.setdefault((apart(name)[0], reason), []).append(f"{row['batch']} x {row['seconds']} s{threads}")
    for (name, reason), where in found.items():
        places = "" if len(where) >= len(rows) else f" ({'; '.join(dict.fromkeys(where))})"
        yield f"- {name}: {reason}{places}"


def operations_of(data: Row, name: str, seconds: float) -> float | None:
    """Return the GFLOPs for one utterance."""
    encoder, _ = apart(name)
    points = 3 if FORMS[encoder].exact else 2  # local attention grows linearly, except for incomplete windows
    for row in data.get("operations", []):
        if encoder in row["measured"]:
            return gflops_at(seconds, row["lengths"][-points:], row["measured"][encoder]["gflops"][-points:])
    return None


def peak_of(data: Row, threads: int, precision: str) -> float | None:
    """Return the GFLOP/s of the fastest matrix product with this number of threads."""
    rows = [row for row in data.get("peak", []) if row["threads"] == threads and precision in row["measured"]]
    return max(rows[0]["measured"][precision].values()) if rows else None


def compared(data: Row, row: Row, name: str, base: str) -> str:
    """Return a cell with the speed relative to ``base`` and, for a single utterance, the share of the peak."""
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
        yield (
            "The largest difference is the difference to the first encoder of the same network in this table. Padding "
            "does not count."
        )
    for row in data.get("peak", []):
        for precision, ways in row["measured"].items():
            speeds = ", ".join(f"{way} {speed:.0f}" for way, speed in ways.items())
            yield (
                f"Speed of large matrix products, {precision}, {counted(row['threads'], 'thread')}, in GFLOP/s: "
                f"{speeds}."
            )


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
    """Return the whole page in Markdown."""
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
