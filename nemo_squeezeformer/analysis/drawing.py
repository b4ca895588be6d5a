"""A drawing of the frame rates in an encoder, with one line for each rate.

The line of a branch of the temporal U-Net is directly below the line of the layers from which the branch starts.
"""

from __future__ import annotations

from nemo_squeezeformer.core.frames.spans import Span

FORK, JOIN, DOWN, UP, LINE = "┬", "+", "└", "┘", "─"


def drawing(span: Span, feature_ms: float, frame_ms: float) -> list[str]:
    """Return the lines of the drawing. The first line shows the features, and the other lines show the layers.

    Each line begins with the length of a frame in milliseconds.

    Args:
        span: the layers and the branches of the temporal U-Net, as in ``SqueezeformerEncoder.span``.
        feature_ms: length of a feature frame in milliseconds.
        frame_ms: length of an encoder frame in milliseconds.
    """
    rows = ["features ─┐"]
    at = len(rows[0]) - 1
    rows.append(" " * at + "└─ subsampling ─ ")
    _layers(span, rows, 1)
    rows[1] += "encodings"
    lengths = [feature_ms, *(frame_ms * 2**depth for depth in range(len(rows) - 1))]
    labels = [f"{ms:g} ms" for ms in lengths]
    width = max(map(len, labels))
    return [f"{label:>{width}}  {row}".rstrip() for label, row in zip(labels, rows)]


def layers(start: int, stop: int) -> str:
    """Return the name of the layers from ``start`` to ``stop - 1``, for example ``layers 0-7``."""
    return f"layer {start}" if stop == start + 1 else f"layers {start}-{stop - 1}"


def _layers(span: Span, rows: list[str], row: int) -> None:
    at = span.start
    for branch in span.branches:
        if at < branch.start:
            rows[row] += f"{layers(at, branch.start)} ─"
        _branch(branch, rows, row)
        at = branch.stop
    if at < span.stop:
        rows[row] += f"{layers(at, span.stop)} ─ "


def _branch(branch: Span, rows: list[str], row: int) -> None:
    fork = len(rows[row])
    if row + 1 == len(rows):
        rows.append("")
    rows[row + 1] = rows[row + 1].ljust(fork) + f"{DOWN}─ reduce ─ "
    _layers(branch, rows, row + 1)
    rows[row + 1] += "recover ─"
    join = len(rows[row + 1])
    rows[row + 1] += UP
    rows[row] += FORK + LINE * (join - fork - 1) + f"{JOIN} ─ "
