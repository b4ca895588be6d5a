"""The page of the sizes, and the table that docs/benchmarks.md quotes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.measuring.tables import milliseconds, table, timed
from nemo_squeezeformer.analysis.sizes import PUBLISHED, Published

INTRODUCTION = """# The six sizes

`python -m benchmarks.sizes` makes this page. `sizes.json` has all numbers. Parameters and operations of the encoder are
counted. The counts are equal on every machine, and equal to the published values (`tests/analysis/test_sizes.py`).
Times and memory are measured. In repeated runs on a similar idle machine, times agree within 20 % and memory agrees
within 15 MiB. **The word error rates are published values. We did not measure them.**"""
HEAD = {
    "counted": """The operations are for one utterance with 80 features every 10 ms. A multiplication and an addition
count as two operations. The numbers in brackets are without the temporal U-Net.""",
    "ms": """The table shows the processor time of the encoder for one utterance, on one thread. The program calls the
encoders of all sizes alternately. A cell has the median. If an encoder was called more than once, the quartiles follow
in brackets.""",
    "memory": """The table shows the peak memory above the memory of the model and of the input. A cell has the median
of three processes with one call each. The weights have a separate column.""",
    "wer": """The table shows the published word error rates on LibriSpeech test-clean / test-other, in percent, after
training on the 960 h of LibriSpeech. The authors' values are for the models that the authors released. NVIDIA's
values are for the models `stt_en_squeezeformer_ctc_<size>_ls`.""",
}


def page(made: dict[str, Any]) -> str:
    """Return the whole page in Markdown."""
    rows = made["sizes"]
    lengths = list(next(iter(rows.values()))["gflops"])

    def each(cell: Callable[[dict[str, Any], str], str]) -> list[list[str]]:
        return [[name, *(cell(row, seconds) for seconds in lengths)] for name, row in rows.items()]

    operations = each(lambda row, s: f"{row['gflops'][s]:.2f} ({row['gflops_without_unet'][s]:.2f})")
    for row in operations:
        row.insert(1, f"{rows[row[0]]['parameters']:,}")
    memory = each(lambda row, s: f"{row['memory_mib'][s]:,.0f}")
    for row in memory:
        row.insert(1, f"{4 * rows[row[0]]['parameters'] / 2**20:,.0f}")
    times = each(lambda row, s: timed(row["ms"][s]))
    known = {name: PUBLISHED[name] for name in rows if name in PUBLISHED}
    wer = [[name, _wer(one.wer, 2), _wer(one.wer_nemo, 1)] for name, one in known.items()]
    return (
        "\n\n".join(
            [
                INTRODUCTION,
                f"{made['conditions']}.",
                f"## Parameters and operations\n\n{HEAD['counted']}",
                table(["size", "parameters", *(f"GFLOPs for {s} s" for s in lengths)], operations),
                f"## Time\n\n{HEAD['ms']}",
                table(["size", *(f"time for {s} s, ms" for s in lengths)], times),
                f"## Memory\n\n{HEAD['memory']}",
                table(["size", "weights, MiB", *(f"memory for {s} s, MiB" for s in lengths)], memory),
                f"## Word error rates as published\n\n{HEAD['wer']}",
                table(["size", "authors' WER", "NVIDIA's WER"], wer),
            ]
        )
        + "\n"
    )


def quoted(made: dict[str, Any]) -> str:
    """Return the table of docs/benchmarks.md, for 30 s of audio."""
    head = ["size", "parameters", "GFLOPs", "GFLOPs without the temporal U-Net", "time", "memory"]
    head.append("authors' WER, published")
    rows = []
    for name, row in made["sizes"].items():
        published: Published = PUBLISHED[name]
        measured = [f"{milliseconds(row['ms']['30'][1])} ms", f"{row['memory_mib']['30']:,.0f} MiB"]
        counted = [f"{row['parameters']:,}", f"{row['gflops']['30']:.2f}", f"{row['gflops_without_unet']['30']:.2f}"]
        rows.append([name, *counted, *measured, _wer(published.wer, 2)])
    return table(head, rows) + "\n"


def _wer(pair: tuple[float, float], digits: int) -> str:
    return " / ".join(f"{one:.{digits}f}" for one in pair)
