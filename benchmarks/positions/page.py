"""The page of results that compares relative and rotary positions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.measuring.claims import done
from benchmarks.measuring.tables import table
from benchmarks.positions.encoders import POSITIONS

UNTRAINED = 90  # a word error rate on dev, in percent, from which a model has not learned to transcribe


def page(results: Path) -> str:
    """Return the page as Markdown."""
    return "\n\n".join(parts(results)) + "\n"


def parts(results: Path) -> Iterator[str]:
    yield "# Rotary positions compared with relative positions"
    yield (
        "`python -m benchmarks.positions` makes this page. The `.jsonl` files in this folder have all trainings. The "
        "`.json` files have all times. The two encoders differ only in `self_attention_model`: `rel_pos` or `rope`."
    )
    for path in sorted(results.glob("*.jsonl")):
        yield from accuracy(path)
    for path in sorted(results.glob("time-*.json")):
        yield from times(json.loads(path.read_text(encoding="utf-8")))


def accuracy(path: Path) -> Iterator[str]:
    """Yield the heading, the conditions and the table of the trainings of one data set."""
    runs = done(path)
    first = runs[0]
    yield f"## Word error rates on {path.stem}"
    yield (
        f"Each training has {first['steps']} steps with batches of {first['batch']} utterances, a peak learning rate "
        f"of {first['peak_lr']:g} and a small encoder of about 0.7 million parameters. Word error rates are in "
        'percent, with one number for each seed. "difference" is rotary minus relative, for equal seeds: the mean and '
        "the standard deviation. A difference that is smaller than the standard deviation shows nothing. The training "
        "loss is the mean of the last tenth of the steps."
    )
    columns: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        (which, partial(rate_of, which=which)) for which in first["wer"]
    ]
    rows = [row(runs, which, value) for which, value in [*columns, ("training loss", final_loss)]]
    yield table(["set", *POSITIONS, *(f"mean, {name}" for name in POSITIONS), "difference"], rows)
    if min(run["wer"].get("dev", 100.0) for run in runs) >= UNTRAINED:
        yield "After these few steps no encoder has learned to transcribe. The table does not compare their accuracy."


def row(runs: list[dict[str, Any]], name: str, value: Callable[[dict[str, Any]], float]) -> list[str]:
    """Return a row of the table: the values of both encoders by seed, the means, and the difference."""
    found = {kind: by_seed(runs, kind, value) for kind in POSITIONS}
    pairs = [found["rotary"][seed] - found["relative"][seed] for seed in found["rotary"] if seed in found["relative"]]
    shown = [", ".join(f"{each:.1f}" for each in found[kind].values()) for kind in POSITIONS]
    means = [f"{mean(found[kind].values()):.1f}" for kind in POSITIONS]
    spread = f" ± {stdev(pairs):.1f}" if len(pairs) > 1 else ""
    return [name, *shown, *means, f"{mean(pairs):+.1f}{spread}"]


def rate_of(run: dict[str, Any], which: str) -> float:
    """Return the word error rate of a training on one set, in percent."""
    rate: float = run["wer"][which]
    return rate


def final_loss(run: dict[str, Any]) -> float:
    """Return the mean loss of the last tenth of a training."""
    loss: float = run["loss"][-1]
    return loss


def by_seed(runs: list[dict[str, Any]], positions: str, value: Callable[[dict[str, Any]], float]) -> dict[int, float]:
    """Return a value of each training of one encoder, by seed. A training that failed has no word error rates."""
    mine = [run for run in runs if run["positions"] == positions and run["wer"]]
    return {run["seed"]: value(run) for run in sorted(mine, key=lambda run: run["seed"])}


def times(found: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of time and memory of one file."""
    yield "## Time and memory"
    yield found["conditions"] + "."
    yield (
        "Times are medians in milliseconds. The calls run in turns, and the clock counts only the processor time of "
        "the thread. The number in parentheses is the speed relative to relative positions in the same row, or in the "
        "same row and optimized."
    )
    rows = [[f"{seconds} s", *cells(row)] for seconds, row in found["inference"].items()]
    names = list(next(iter(found["inference"].values())))
    yield "Inference of one utterance:"
    yield table(["length", *names], rows)
    steps = [[f"dropout_att={rate}", *cells(row)] for rate, row in found["training"].items()]
    yield "A training step on 8 utterances of 6 to 12 s, forward and backward:"
    yield table(["setting", *next(iter(found["training"].values()))], steps)
    yield "A streaming step of 480 ms with a left context of 2.9 s:"
    yield table(list(found["streaming"]), [cells(found["streaming"])])
    yield "Operations for 30 s in GFLOPs, parameters, and peak memory in MiB above the model:"
    memory = next(iter(found["memory"]))
    kept = [
        [name, f"{found['gflops'][name]:.2f}", f"{found['parameters'][name]:,}", str(found["memory"][memory][name])]
        for name in POSITIONS
    ]
    yield table(["positions", "GFLOPs", "parameters", f"peak memory at {memory} s"], kept)


def cells(row: dict[str, Any]) -> list[str]:
    """Return the median of each encoder, with the ratio to relative positions."""
    shown = []
    for name, measured in row.items():
        base = "relative, optimized" if name.endswith("optimized") else "relative"
        shown.append(f"{measured['ms'][1]:.1f} ({row[base]['ms'][1] / measured['ms'][1]:.2f})")
    return shown
