"""The figure of temporal redundancy: the similarity of frames after each block, with one line for each model."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.analysis.redundancy import DISTANCES, Block

# Colors of Okabe and Ito, which people with any color vision can distinguish, and markers.
LOOKS = [
    ("#D55E00", "s"),
    ("#0072B2", "o"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#000000", "v"),
    ("#E69F00", "P"),
    ("#56B4E9", "X"),
]
MILLISECONDS_SHOWN = 2  # number of panels with an equal distance in time for all models


@dataclass(frozen=True)
class Curves:
    """The measurement of one model. ``untrained`` is True if the model has new random weights."""

    label: str
    blocks: Sequence[Block]
    untrained: bool = False


def common_milliseconds(curves: Sequence[Curves]) -> list[float]:
    """Return the distances between two frames, in milliseconds, that were measured at all blocks of all models.

    The list is empty if all blocks have the same frame rate, because the panels in milliseconds would then repeat the
    panels in frames.
    """
    rates = {block.frame_ms for curve in curves for block in curve.blocks}
    if len(rates) == 1:
        return []
    reached = [{distance * rate for distance in DISTANCES} for rate in rates]
    return sorted(set.intersection(*reached))[:MILLISECONDS_SHOWN]


def panels(curves: Sequence[Curves]) -> dict[str, Callable[[Block], float]]:
    """Return a dict of the panels of the figure: from the title to the function that returns the value of a block."""
    found: dict[str, Callable[[Block], float]] = {}
    for distance in DISTANCES:
        title = f"{distance} frame{'s' if distance > 1 else ''} apart"
        found[title] = lambda block, distance=distance: block.neighbours[distance].value  # type: ignore[misc]
    for time in common_milliseconds(curves):
        found[f"{time:g} ms apart"] = lambda block, time=time: (  # type: ignore[misc]
            block.neighbours[round(time / block.frame_ms)].value
        )
    return found | {"any two of an utterance": lambda block: block.any_two.value}


def rates(blocks: Sequence[Block]) -> str:
    """Return the frame lengths for the legend, for example ``40 ms a frame, hollow: 80 ms``."""
    first, *others = sorted({block.frame_ms for block in blocks})
    return f"{first:g} ms a frame" + (f", hollow: {' and '.join(f'{ms:g}' for ms in others)} ms" if others else "")


def figure(curves: Sequence[Curves], heading: str, kind: str = "png") -> bytes:
    """Draw the figure and return the bytes of a png, pdf or svg file. ``kind`` is the type of the file."""
    from matplotlib.figure import Figure

    drawn = panels(curves)
    columns = math.ceil((len(drawn) + 1) / 2)  # one place is for the legend
    drawing = Figure(figsize=(3.1 * columns + 0.6, 6.4), layout="constrained")
    axes = drawing.subplots(2, columns, sharex=True, sharey=True, squeeze=False).ravel()
    looks = {label: LOOKS[i % len(LOOKS)] for i, label in enumerate(dict.fromkeys(curve.label for curve in curves))}
    for axis, (title, value) in zip(axes, drawn.items()):
        for curve in curves:
            colour, marker = looks[curve.label]
            numbers, values = zip(*((block.number, value(block)) for block in curve.blocks))
            least = min(block.frame_ms for block in curve.blocks)
            line = {"color": colour, "lw": 1.5, "ls": "--" if curve.untrained else "-"}
            axis.plot(numbers, values, alpha=0.55 if curve.untrained else 1.0, **line)
            fast = [not curve.untrained and block.frame_ms == least for block in curve.blocks]
            slow = [not curve.untrained and block.frame_ms != least for block in curve.blocks]
            for marked, face in ((fast, colour), (slow, "white")):
                axis.plot(numbers, values, ls="", marker=marker, ms=5, color=colour, mfc=face, markevery=marked)
        axis.set_title(title, fontsize=11)
        axis.grid(color="0.88")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("block (0: before the first)")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[::columns]:
        axis.set_ylabel("mean cosine similarity")
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    _draw_legend(axes[len(drawn)], curves, looks)
    drawing.suptitle(heading, fontsize=12)
    file = io.BytesIO()
    drawing.savefig(file, dpi=110, format=kind)
    return file.getvalue()


def _draw_legend(axis: Any, curves: Sequence[Curves], looks: dict[str, tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    trained = [curve for curve in curves if not curve.untrained]
    handles = [
        Line2D([], [], color=looks[curve.label][0], marker=looks[curve.label][1], ms=6, lw=1.5) for curve in trained
    ]
    texts = [f"{curve.label}\n({rates(curve.blocks)})" for curve in trained]
    if len(trained) < len(curves):
        handles.append(Line2D([], [], color="0.4", ls="--", lw=1.5))
        texts.append("new random weights")
    axis.legend(handles, texts, loc="center", frameon=False, fontsize=9.5, labelspacing=0.9)
