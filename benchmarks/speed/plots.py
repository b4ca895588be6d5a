"""Figures of time and memory over the length of the audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring.figures import BLACK, BLUE, GREEN, PURPLE, RED, digest, save
from benchmarks.measuring.forms import shown
from benchmarks.measuring.results import read

# Each combination of network and attention has a color. Encoders of this project have solid or dotted lines, and the
# NeMo encoders with the same color have dashed lines. Variants of one network differ in their markers.
STYLES: dict[str, tuple[str, str, str]] = {
    "in-tree": (BLACK, "-", "X"),
    "ours, plain": (BLUE, ":", "o"),
    "ours": (BLUE, "-", "o"),
    "ours, optimised": (BLUE, "-", "*"),
    "ours, local": (GREEN, "-", "o"),
    "ours, 8x": (RED, "-", "o"),
    "ours, 8x, optimised": (RED, "-", "*"),
    "ours, 8x, local": (PURPLE, "-", "o"),
    "Conformer": (BLUE, "--", "s"),
    "Conformer, SDPA": (BLUE, "--", "^"),
    "Conformer, local": (GREEN, "--", "s"),
    "FastConformer": (RED, "--", "s"),
    "FastConformer, local": (PURPLE, "--", "s"),
}


def curves(
    rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]
) -> dict[str, list[tuple[float, float]]]:
    """Return pairs of length and value for each encoder, for float32 only."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STYLES}
    for row in rows:
        for name in STYLES:
            if name in row["measured"]:
                found[name].append((row["seconds"], value(row["measured"][name])))
    return {name: points for name, points in found.items() if points}


def figure(path: Path, panels: dict[str, dict[str, list[tuple[float, float]]]], quantity: str, source: str) -> None:
    """Draw the panels side by side with one legend, and store ``source`` in the metadata of the file."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(3.6 + 4.2 * len(panels), 5.2), layout="constrained")
    axes = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axis, (title, lines) in zip(axes, panels.items()):
        for name, points in lines.items():
            colour, dashes, marker = STYLES[name]
            size, face = 10 if marker == "*" else 5, "white" if dashes == "--" else colour
            look = {"color": colour, "ls": dashes, "marker": marker, "ms": size, "mfc": face, "lw": 1.6}
            (handles[name],) = axis.plot(*zip(*points), **look)
        axis.set(title=title, xlabel="length of the audio, s", xscale="log", yscale="log")
        ticks = sorted({seconds for points in lines.values() for seconds, _ in points})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.yaxis.set_minor_formatter(lambda value, _: "")
        axis.grid(which="major", color="0.85")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(quantity)
    order = [name for name in STYLES if name in handles]
    drawing.legend(
        [handles[name] for name in order], [shown(name) for name in order], loc="outside right upper", frameon=False
    )
    save(drawing, path, source)


def draw(folder: Path) -> None:
    """Draw the figures for all results in a folder, and write them to the same folder."""
    for name, data in read(folder).items():
        source = digest(folder / f"{name}.json")
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in data.get("inference", []):
            if row["batch"] == 1:
                groups.setdefault(f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}", []).append(row)
        if groups:
            panels = {title: curves(rows, lambda held: held["ms"][1]) for title, rows in groups.items()}
            figure(folder / f"{name}-time.png", panels, "time of an inference, ms", source)
        if data.get("memory"):
            lines = curves(data["memory"], lambda held: held["MiB"])
            figure(folder / f"{name}-memory.png", {"batch 1": lines}, "peak memory above the model, MiB", source)
