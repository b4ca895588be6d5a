"""Tables that docs/benchmarks.md quotes, made from the results."""

from __future__ import annotations

import json

from benchmarks.measuring.claims import done
from benchmarks.measuring.results import RESULTS
from benchmarks.measuring.tables import table
from benchmarks.side_by_side.runs import best_peak
from benchmarks.sizes import page as sizes_page
from benchmarks.speed import readme as speed_table

LATENCIES = ["80 ms", "160 ms", "480 ms", "1040 ms"]


def cells_of(page: str) -> list[list[str]]:
    """Return the cells of all table rows of a page of results."""
    lines = (RESULTS / page).read_text(encoding="utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]


def side_by_side() -> str:
    """Return the comparison of encoders, with the results at the best peak learning rate of each encoder."""
    timed = json.loads((RESULTS / "side_by_side" / "time.json").read_text(encoding="utf-8"))
    runs = done(RESULTS / "side_by_side" / "digits.jsonl")
    names = {
        "Squeezeformer": "Squeezeformer",
        "Conformer": "NeMo's Conformer",
        "Squeezeformer 8x": "Squeezeformer, `rate=8x`",
        "FastConformer": "NeMo's FastConformer",
    }
    rows = []
    for name, quoted in names.items():
        best = best_peak(runs, name, [5e-4, 1.5e-3, 4.5e-3])
        mine = [run["wer"] for run in runs if run["architecture"] == name and run["peak_lr"] == best]
        cells = [quoted, f"{timed[name]['step_ms']} ms", f"{timed[name]['gflops_30_s']:.2f}"]
        cells += [", ".join(f"{wer[which]:.1f}" for wer in mine) + " %" for which in ("seen", "unseen")]
        rows.append(cells)
    head = ["encoder", "time of a training step", "GFLOPs for 30 s", "WER, training speakers", "WER, unseen speaker"]
    return table(head, rows)


def streaming_wer() -> str:
    """Return the WER of a streaming model at each latency and offline."""
    seen = {cells[0]: cells for cells in cells_of("streaming_wer.md")[:7]}
    rows = []
    for name, column in (("transducer", 2), ("CTC", 5)):
        wer = [seen[latency][column] for latency in LATENCIES] + [seen["offline"][column + 1]]
        rows.append([f"WER of the {name} decoder", *(f"{cell} %" for cell in wer)])
    return table(["latency", *LATENCIES, "offline"], rows)


def streaming_time() -> str:
    """Return the times of streaming relative to NeMo's Conformer, on one thread."""
    timed = cells_of("streaming_time.md")
    timed = timed[: next(i for i, cells in enumerate(timed) if "FastConformer" in " ".join(cells))]
    rows = []
    for name, batch in (("time of a step with one stream", "1"), ("time of a step with eight streams", "8")):
        ratios = [cells[5] for cells in timed if cells[0] in LATENCIES and cells[1:3] == [batch, "1"]]
        rows.append([name, *ratios])
    return table(["latency", *LATENCIES], rows)


def sizes() -> str:
    """Return the table of the six published sizes."""
    return sizes_page.quoted(json.loads((RESULTS / "sizes.json").read_text(encoding="utf-8"))).strip()


def speed() -> str:
    """Return the table of time and memory of an utterance."""
    return speed_table.quoted(RESULTS / "speed").strip()


ALL = (side_by_side, streaming_wer, streaming_time, sizes, speed)
