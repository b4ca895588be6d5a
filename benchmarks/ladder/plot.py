"""The figure of the ladder: operations, time and error rates, with one row for each rung."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.ladder.page import error_rates, longest, measured, percent
from benchmarks.ladder.rungs import RUNGS
from benchmarks.measuring.figures import BLUE, RED, save


def draw(data: dict[str, Any], path: Path, source: str) -> None:
    """Draw one panel for each quantity and store ``source`` in the metadata of the file."""
    from matplotlib.figure import Figure

    panels = 4 if longest(data) else 3
    drawing = Figure(figsize=(3.6 * panels + 1, 4.2), layout="constrained")
    axes = drawing.subplots(1, panels, sharey=True, width_ratios=[1.3, *[1] * (panels - 1)])
    at = {name: place for place, name in enumerate(RUNGS)}
    _operations(axes[0], measured(data, "operations"), at)
    _time(axes[1], measured(data, "time"), at)
    _published(axes[2], at)
    if panels == 4:
        _small(axes[3], data, at)
    axes[0].set_yticks(list(at.values()), [rung.step for rung in RUNGS.values()])
    axes[0].invert_yaxis()
    for axis in axes:
        axis.grid(axis="x", color="0.85")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    save(drawing, path, source)


def _operations(axis: Any, counts: dict[str, Any], at: dict[str, int]) -> None:
    for name in at:
        held = counts[name]
        inside = held["gflops"] - held["subsampling"]
        axis.barh(at[name], held["subsampling"], color=RED, hatch="//", edgecolor="white")
        axis.barh(at[name], inside, left=held["subsampling"], color=BLUE)
        share = percent(held["subsampling"], held["gflops"])
        axis.text(held["gflops"] + 1, at[name], f"{held['gflops']:.1f}", va="center")
        axis.text(held["subsampling"] + 1, at[name], f"{share:.0f} %", va="center", color="white")
    handles = [axis.barh(0, 0, color=RED, hatch="//", edgecolor="white"), axis.barh(0, 0, color=BLUE)]
    axis.legend(
        handles, ["subsampling (with its share)", "layers"], loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
    )
    axis.set(xlabel="operations for 30 s of audio, GFLOPs", xlim=(0, 1.15 * counts["Conformer"]["gflops"]))


def _time(axis: Any, times: dict[str, Any], at: dict[str, int]) -> None:
    for name, held in times.items():
        low, middle, high = (value / 1e3 for value in held["ms"])
        axis.barh(at[name], middle, color="0.7", xerr=[[middle - low], [high - middle]], capsize=3)
    axis.set(xlabel="time for 30 s of audio, one thread, s")


def _published(axis: Any, at: dict[str, int]) -> None:
    known = {name: rung.published_wer for name, rung in RUNGS.items() if rung.published_wer}
    axis.plot(list(known.values()), [at[name] for name in known], color=BLUE, marker="o", ls=":")
    for name, rate in known.items():
        axis.annotate(f"{rate:.2f}", (rate, at[name]), (-8, 0), textcoords="offset points", va="center", ha="right")
    axis.set(xlabel="paper: word error rate, test-other, %", xlim=(6.4, 8.1))


def _small(axis: Any, data: dict[str, Any], at: dict[str, int]) -> None:
    for which, colour, marker in (("unseen", BLUE, "o"), ("seen", RED, "s")):
        rates = error_rates(data, which)
        label = f"{which} speaker{'s' if which == 'seen' else ''}"
        middle = [mean(each) for each in rates.values()]
        axis.plot(middle, [at[name] for name in rates], color=colour, marker=marker, ls=":", label=label)
        if any(len(each) > 1 for each in rates.values()):
            points = [(rate, at[name]) for name, each in rates.items() for rate in each]
            axis.plot(*zip(*points), color=colour, marker=marker, mfc="white", ms=4, ls="none", label="one seed")
    axis.set(xlabel="small models: word error rate, digits, %")
    axis.set_xlim(left=0)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
