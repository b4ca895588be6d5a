"""The page of results of the speed benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring.forms import FORMS, shown
from benchmarks.measuring.results import read
from benchmarks.measuring.tables import table, timed
from benchmarks.speed.operations import gflops_at
from benchmarks.speed.plan import apart

Row = dict[str, Any]
MEASURED = ("inference", "memory", "training", "training_memory")
INTRODUCTION = """# Speed

`python -m benchmarks.speed` makes this page. The `.json` files in this folder have all numbers. The encoders have
nearly equal numbers of parameters. All weights are random. Encoders of the same network have equal weights.

The names of the encoders have these meanings:

- "our Squeezeformer" is the Squeezeformer of this project with its default settings.
- "plain attention" means `attention="plain"`.
- "optimized" means that `optimize_for_inference()` was called.
- "8x" is the setting `rate=8x` of our recipes. With this setting, an encoder frame lasts 80 ms instead of 40 ms. An
  encoder frame of NeMo's FastConformer also lasts 80 ms.
- With "local attention", a frame attends to 128 frames on each side. In all other encoders, a frame attends to all
  frames.
- "SDPA" means `use_pytorch_sdpa=True`.
- "bf16" means automatic mixed precision with bfloat16. All other encoders compute in float32.

The program measures these quantities:

- Time: one process calls the encoders alternately, so that a change of the machine's load affects all encoders. The
  tables show the median. If an encoder was called more than once, the quartiles follow in brackets. The shortest
  utterance of a batch has half of the given length, and the longest utterance has the given length.
- GFLOPs: the number of operations of the encoder, in 10^9. Our encoders with full attention are counted with
  `attention="plain"`. A multiplication and an addition count as two operations.
- Share of the peak: the GFLOPs, divided by the measured time and by the peak speed. The peak speed is the speed of the
  fastest large matrix product with the same number of threads. Encoders that save operations can have a share above
  100 %.
- Memory: the peak above the memory of the model and of the input, in a separate process.
- Training step: a forward and a backward pass with dropout. The step has no optimizer."""


def reference(rows: list[Row]) -> str:
    """Return the reference of the comparison: NeMo's Squeezeformer if it was measured, or our plain encoder."""
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
        yield f"- {shown(name)}: {reason}{places}"


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
        head = ["encoder", "parameters", *(f"GFLOPs for {s} s" for s in lengths), "largest difference of the outputs"]
        rows = []
        for name, measured in row["measured"].items():
            work = [f"{operations_of(data, name, seconds):.1f}" for seconds in lengths]
            difference = f"{measured['difference']:.1e}" if measured.get("difference") else "-"
            rows.append([shown(name), f"{measured['parameters']:,}", *work, difference])
        yield "### Encoders"
        yield "The table shows the size of each encoder and the operations for one utterance."
        yield table(head, rows)
        yield (
            "The last column compares the outputs with the outputs of the first encoder of the same network in the "
            "table. The comparison leaves out the padding."
        )
    for row in data.get("peak", []):
        for precision, ways in row["measured"].items():
            speeds = ", ".join(f"{way} {speed:.0f}" for way, speed in ways.items())
            yield (
                f"The speed of large matrix products in {precision} with {counted(row['threads'], 'thread')}, in "
                f"GFLOP/s, is: {speeds}."
            )


def inference(data: Row) -> Iterator[str]:
    rows = data.get("inference", [])
    for threads, batch in sorted({(row["threads"], row["batch"]) for row in rows}, key=lambda pair: pair[::-1]):
        group = [row for row in rows if (row["threads"], row["batch"]) == (threads, batch)]
        names, base = names_of(group), reference(group)
        lengths = [f"{row['seconds']} s" for row in group]
        yield f"### Inference, batch {batch}, {counted(threads, 'thread')}"
        yield "The table shows the time of an inference in milliseconds, by the length of the audio."
        times = [[shown(name), *(timed(row["measured"].get(name, {}).get("ms")) for row in group)] for name in names]
        yield table(["encoder", *lengths], times)
        ratios = [[shown(name), *(compared(data, row, name, base) for row in group)] for name in names]
        share = ", and the share of the peak" if batch == 1 else ""
        yield f"The table shows the speed relative to {shown(base)}{share}, by the length of the audio."
        yield table(["encoder", *lengths], ratios)


def memory(data: Row) -> Iterator[str]:
    rows = data.get("memory", [])
    if rows:
        lengths = [f"{row['seconds']} s" for row in rows]
        cells = [
            [shown(name), *(f"{row['measured'][name]['MiB']:,.0f}" if name in row["measured"] else "-" for row in rows)]
            for name in names_of(rows)
        ]
        yield "### Memory of inference, batch 1"
        yield "The table shows the peak memory of an inference in MiB, by the length of the audio."
        yield table(["encoder", *lengths], cells)


def training(data: Row) -> Iterator[str]:
    for row in data.get("training", []):
        measured, base = row["measured"], reference([row])
        cells = [
            [
                shown(name),
                timed(held["ms"]),
                f"{measured[base]['ms'][1] / held['ms'][1]:.2f}x" if base in measured else "-",
            ]
            for name, held in measured.items()
        ]
        yield f"### Training step, {row['batch']} x {row['seconds']} s, {counted(row['threads'], 'thread')}"
        yield table(["encoder", "time, ms", f"speed relative to {shown(base)}"], cells)
    for row in data.get("training_memory", []):
        measured, base = row["measured"], reference([row])
        cells = [
            [
                shown(name),
                f"{held['MiB']:,.0f}",
                f"{held['MiB'] / measured[base]['MiB']:.2f}" if base in measured else "-",
            ]
            for name, held in measured.items()
        ]
        yield f"### Memory of a training step, {row['batch']} x {row['seconds']} s"
        yield table(["encoder", "memory, MiB", f"memory relative to {shown(base)}"], cells)


def page(folder: Path) -> str:
    """Return the whole page in Markdown."""
    parts = [INTRODUCTION]
    for name, data in read(folder).items():
        parts.append(f"## Results in {name}.json")
        rows = [row for part in data.values() if isinstance(part, list) for row in part]
        commits = sorted({row["commit"] for row in rows})
        parts.append(f"{'. '.join(data['conditions'].values())}. Commit {', '.join(commits)}.")
        pictures = [f"{name}-{what}.png" for what in ("time", "memory") if (folder / f"{name}-{what}.png").exists()]
        parts += [f"![{picture}]({picture})" for picture in pictures]
        for section in (encoders, inference, memory, training):
            parts += section(data)
        reasons = list(left_out([row for part in MEASURED for row in data.get(part, [])]))
        if reasons:
            parts.append("### Encoders that were left out\n\n" + "\n".join(reasons))
    return "\n\n".join(parts) + "\n"
