"""Drawings of the network: ``python docs/figures/draw_network.py`` writes SVG files to the folder of this file.

The drawings are made from an encoder. They show its layers, branches and frame rates, and the modules and norms of a
layer. ``temporal_unet(encoder, title)`` draws any other encoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch
from torch import nn

from nemo_squeezeformer.analysis.sizes import sizes
from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.conformer import ConformerLayer
from nemo_squeezeformer.core.frames.spans import Span

# The drawings have a white background for pages with a dark theme. The colors are light variants of the colors of Okabe
# and Ito.
RATES = ("#ffffff", "#cfe3f2", "#fbdcc4", "#cdeadf", "#f3dcea")
INK, MUTED = "#1f2328", "#59636e"
FRAME_MS = 10
# In pixels: distance between layers, width of a layer, distance between frame rates, width of the column of labels.
STEP, BOX, ROW, LEFT = 37, 31, 112, 150


class Drawing:
    """A drawing of boxes, lines and text, with coordinates in pixels. ``svg`` returns it on a white background."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shapes: list[str] = []

    def box(self, x: float, y: float, width: float, text: str, colour: str, height: float = 34) -> None:
        """Add a box with its center at (x, y). ``text`` may have several lines."""
        self.shapes.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="4" '
            f'fill="{colour}" stroke="{INK}"/>'
        )
        rows = text.split("\n")
        for i, row in enumerate(rows):
            self.text(x, y + 4.5 + 14 * (i - (len(rows) - 1) / 2), row)

    def plus(self, x: float, y: float) -> None:
        self.shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="#ffffff" stroke="{INK}"/>')
        self.text(x, y + 5, "+")

    def line(self, *points: tuple[float, float], arrow: bool = True) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.lines.append(f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.3"{end}/>')

    def text(self, x: float, y: float, text: str, anchor: str = "middle", colour: str = INK, size: int = 13) -> None:
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
        )

    def svg(self, width: float, height: float, title: str) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" font-family="Helvetica, Arial, sans-serif">\n'
            f"<title>{escape(title)}</title>\n<desc>Made by docs/figures/draw_network.py</desc>\n"
            '<defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
            f'<path d="M0,0.5 L7,4 L0,7.5 z" fill="{INK}"/></marker></defs>\n'
            f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#ffffff"/>\n'
        )
        return head + "\n".join([*self.lines, *self.shapes]) + "\n</svg>\n"


def temporal_unet(encoder: SqueezeformerEncoder, title: str) -> str:
    """Return a drawing of the encoder from left to right.

    Each frame rate has a row. Each branch goes down to the next row and comes back.
    """
    drawing, factor = Drawing(), encoder.subsampling_factor
    top = 62

    def row(level: int) -> float:
        return top + ROW * level  # level 0: features

    def at(level: int) -> str:
        return f"{FRAME_MS * factor * 2 ** (level - 1)} ms" if level else f"{FRAME_MS} ms"

    def run(span: Span, level: int, x: float) -> float:
        """Draw the layers and branches of ``span`` from ``x`` to the right. Return the x coordinate of their end."""
        y, begun = row(level), x
        layer = span.start
        for branch in (*span.branches, None):
            for i in range(layer, branch.start if branch else span.stop):
                x += STEP
                drawing.box(x, y, BOX, str(i), RATES[level])
            if branch:
                fork = x + STEP
                end = max(run(branch, level + 1, fork), fork + 2.6 * STEP) + STEP
                down, up = (y + row(level + 1)) / 2, row(level + 1)
                drawing.line((fork, y), (fork, up), (fork + STEP - BOX / 2, up), arrow=branch.stop > branch.start)
                drawing.line((end - STEP, up), (end, up), (end, y + 9))
                drawing.box(fork, down, 66, "reduce", RATES[level + 1])
                drawing.box(end, down, 74, "upsample\nrecover", RATES[level], height=40)
                drawing.plus(end, y)
                x, layer = end, branch.stop
        drawing.line((begun, y), (x, y), arrow=False)
        return x

    drawing.box(LEFT, row(0), 78, "features", RATES[0])
    first = LEFT + 62
    drawing.line((LEFT, row(0)), (first, row(0)), (first, row(1)), (first + STEP - BOX / 2, row(1)))
    drawing.box(first, (row(0) + row(1)) / 2, 92, f"subsample\nby {factor}", RATES[1], height=40)
    x = run(encoder.span, 1, first)
    drawing.line((x, row(1)), (x + 1.1 * STEP, row(1)))
    drawing.box(x + 2.3 * STEP, row(1), 84, "encodings", RATES[1])
    depth = encoder.span.depth() + 1
    for level in range(depth + 1):
        frames = f"T / {factor * 2 ** (level - 1)}" if level else "T"
        drawing.text(16, row(level) - 2, at(level), anchor="start", size=14)
        drawing.text(16, row(level) + 15, f"{frames} frames", anchor="start", colour=MUTED, size=12)
    drawing.text(16, 26, title, anchor="start", size=15)
    return drawing.svg(x + 3.8 * STEP, row(depth) + 44, title)


MODULES = {
    "self_attn": "attention",
    "feed_forward1": "feed-forward",
    "feed_forward2": "feed-forward",
    "conv": "convolution",
}
COLOURS = {"attention": RATES[1], "feed-forward": RATES[2], "convolution": RATES[3]}


def layer(encoders: dict[str, SqueezeformerEncoder], title: str) -> str:
    """Return a drawing with one layer of each encoder: its residual branches, and the norms between their sums."""
    drawing = Drawing()
    drawing.text(16, 28, title, anchor="start", size=15)
    for i, (called, encoder) in enumerate(encoders.items()):
        y, x, entrance = 132 + 132 * i, 40.0, ""
        drawing.text(16, y - 68, called, anchor="start", colour=MUTED)
        weight = "½ " if isinstance(encoder.layers[0], ConformerLayer) else ""
        children = list(encoder.layers[0].named_children())
        for (child, module), (following, _) in zip(children, [*children[1:], ("", None)]):
            if child in MODULES:
                what = MODULES[child]
                drawing.line((x, y), (x, y - 40), (x + 200, y - 40), (x + 200, y - 9))
                drawing.box(x + 45, y - 40, 54, entrance, RATES[4] if entrance == "norm" else RATES[0])
                text = weight + what if what == "feed-forward" else what
                drawing.box(x + 132, y - 40, 108, text, COLOURS[what])
                drawing.plus(x + 200, y)
                x += 274
            elif following in MODULES:
                entrance = "norm" if isinstance(module, nn.LayerNorm) else "scale"
            elif isinstance(module, nn.LayerNorm):
                drawing.box(x - 36, y, 46, "norm", RATES[4])
        drawing.line((16, y), (x + 16, y))
    return drawing.svg(1164, 300, title)


def build(size: str, **settings: Any) -> SqueezeformerEncoder:
    """Build an encoder of a published size on the meta device, which needs no memory for weights."""
    with torch.device("meta"):
        return SqueezeformerEncoder(feat_in=80, **{**sizes()[size].encoder, **settings})


def figures() -> dict[str, str]:
    """Return all drawings by file name."""
    one = {"n_layers": 1, "time_reduce_idx": None, "time_recovery_idx": None}
    s, nested = build("s"), build("s", time_reduce_idx=[7, 11], time_recovery_idx=[17, 15])
    (branch,) = s.span.branches
    inside = f"{branch.start} to {branch.stop - 1}"
    return {
        "temporal-unet.svg": temporal_unet(s, f"Squeezeformer s: {len(s.layers)} layers. Layers {inside} run at 80 ms"),
        "nested.svg": temporal_unet(nested, "A nested temporal U-Net: layers 11 to 14 run at 160 ms"),
        "layer.svg": layer(
            {
                "Squeezeformer's layer: a learned scale before each module, a norm after each sum": build("s", **one),
                "Conformer's layer: a norm before each module, one at the end": build("s", **one, block="conformer"),
            },
            "A layer, from left to right",
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="output folder (default: the folder of this file)"
    )
    folder = parser.parse_args(argv).output
    for name, svg in figures().items():
        (folder / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
