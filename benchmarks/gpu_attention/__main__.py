"""Which form of relative attention is best for training on a GPU: precision of the gradients, operations and bytes.

    python -m benchmarks.gpu_attention > benchmarks/results/gpu_attention.md

The program needs neither a GPU nor NeMo. It takes a few minutes on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch

from benchmarks.gpu_attention import counts, precision
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import commit, processor
from benchmarks.measuring.tables import table

INTRODUCTION = """# Relative attention in training on a GPU

`python -m benchmarks.gpu_attention` makes this page without a GPU. No form was timed on a GPU for this page."""
FORMS = """The forms are:

- plain: the reference implementation (`core/attention/kernel.py`) with the dtypes of autocast on CUDA.
- recomputed, whole batch: `core/kernels/recomputed_batch.py`, which a GPU uses with `attention: auto` or `blocks`.
- recomputed, utterances in turn: `core/kernels/recomputed_attention.py`, which a CPU uses. It reads the lengths.
- fused kernel: `scaled_dot_product_attention` with the position scores as a mask. The errors are from a program with
  the arithmetic of such a kernel: products of low precision, sums in float32, a rounded output. The counts are for
  PyTorch's memory-efficient kernel.
- FlexAttention: the position scores are a tensor that the score function reads. FlexAttention has no dropout, and no
  backward pass on a CPU. Therefore the recipes, which drop attention weights, cannot use it, and the tests of a machine
  without a GPU cannot compare it. The counts are by formula, without dropout."""
PRECISION = """## Errors of the gradients

The table shows the error of the gradients in low precision, relative to float64: the mean of `linear_pos.weight` and
`pos_bias_v`, and in brackets the mean of `linear_q`, `linear_k`, `linear_v` and `pos_bias_u`. The layer has the width
196, 4 heads, random weights, and 2 utterances with padding, without dropout. The common part is a part of the values
that is the same for all keys. Its unit is the standard deviation of the values. In a small CTC model that
was trained on digits, the common part of a head was 0.3 to 1.1. No program of the repository repeats this measurement.

A fused kernel derives the gradients of the scores from its output. The output is rounded, and the rounding error grows
with the common part. The error of an output frame shifts the gradients of all its scores in the same direction, so that
the errors do not cancel in the gradients of positions. In float32, this error disappears. The recomputed form subtracts
the mean of the values in the backward pass."""
COUNTS = """## Operations and bytes

The table shows counts for the attention of a layer in a training step (forward and backward pass) in bfloat16, with 4
heads and a dropout rate of 0.1: operations, bytes of the operands and results of all operations, and bytes stored for
the backward pass. The projections of queries, keys, values and positions are not counted. Each cell has the counts for
heads of the width 49, and in brackets for the width 81. A GPU with 300 operations for each byte of memory bandwidth is
limited by the bytes in all forms: no form has more than {most:.0f} operations for a byte."""


def precision_table(cases: Sequence[precision.Case], seeds: int) -> str:
    rows = []
    for case in cases:
        lost = precision.errors(case, seeds)
        rows.append([*case.name(), *(f"{positions:.2g} ({others:.2g})" for positions, others in lost.values())])
        print(*rows[-1], file=sys.stderr, flush=True)
    return table(["precision", "frames", "scores", "common part", *precision.FORMS], rows)


def counted() -> Iterator[tuple[str, str, list[counts.Count]]]:
    """Yield the counts of each form at each length, for both widths of the heads."""
    for b, t in dict.fromkeys((size.b, size.t) for size in counts.SIZES):
        sizes = [size for size in counts.SIZES if (size.b, size.t) == (b, t)]
        for form in counts.FORMS:
            yield f"{b} x {t}", form, [counts.count(form, size) for size in sizes]
        yield f"{b} x {t}", "FlexAttention", [counts.flex(size) for size in sizes]


def counts_table(rows: Sequence[tuple[str, str, list[counts.Count]]]) -> str:
    def cell(values: list[float]) -> str:
        first, *others = (f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values)
        return f"{first} ({', '.join(others)})"

    lines = []
    for batch, form, found in rows:
        operations, moved, stored = (cell([one[i] / unit for one in found]) for i, unit in enumerate((1e9, 1e9, 1e6)))
        lines.append([batch, form, operations, moved, stored])
    return table(["batch x frames", "form", "operations, 10^9", "moved, GB", "stored, MB"], lines)


def page(cases: Sequence[precision.Case], seeds: int) -> str:
    rows = list(counted())
    most = max(one.operations / one.moved for *_, form, found in rows for one in found)
    errors = precision_table(cases, seeds)
    conditions = f"{processor()}, torch {torch.__version__}, {seeds} seeds; commit {commit()}."
    parts = [INTRODUCTION, conditions, FORMS, PRECISION, errors, COUNTS.format(most=most), counts_table(rows)]
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.gpu_attention", __doc__)
    parser.add_argument("--frames", nargs="+", type=int, default=[100, 400, 1000], help="lengths in the first table")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(page([case for case in precision.CASES if case.t in args.frames], args.seeds), end="")


if __name__ == "__main__":
    main()
