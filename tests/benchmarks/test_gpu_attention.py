"""Tests of the benchmark of relative attention on a GPU: the page, the counts, and the statements of the pages."""

from __future__ import annotations

from benchmarks.gpu_attention import __main__ as benchmark
from benchmarks.gpu_attention import counts
from benchmarks.gpu_attention.counts import FORMS, Size, count, flex
from benchmarks.gpu_attention.precision import Case
from benchmarks.measuring.machine import ROOT

AUTO = "recomputed, whole batch"


def test_the_committed_page_has_the_counts_that_the_program_makes(monkeypatch):
    """Counts are equal on every machine. The longer batches take longer."""
    monkeypatch.setattr(counts, "SIZES", [size for size in counts.SIZES if size.t == 125])
    page = benchmark.page([Case(20, 1.0, 3.0)], seeds=1)
    committed = (ROOT / "benchmarks" / "results" / "gpu_attention.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| 32 x 125 |")]
    assert len(rows) == len(FORMS) + 1 and set(rows) <= set(committed.splitlines())
    assert "| bfloat16, autocast | 20 | 1 | 3 | 0.0" in page


def test_on_a_gpu_auto_moves_fewer_bytes_than_the_reference_implementation_and_stores_no_scores():
    for b, t in ((32, 375), (8, 1500)):
        ours, plain = (count(form, Size(b, t, 49)) for form in (AUTO, "plain"))
        assert ours.moved < 0.7 * plain.moved and ours.operations < 1.3 * plain.operations
        assert ours.stored < 1000 < 7 * 4 * b * t * t < plain.stored


def test_the_operations_of_the_reference_implementation_are_its_products():
    b, t, d = 2, 20, 8
    scores, by_position = 4 * b * t * t, 4 * b * t * (2 * t - 1)
    forward_and_backward = 3 * 2 * d * (2 * scores + by_position)
    assert count("plain", Size(b, t, d)).operations == forward_and_backward
    assert flex(Size(b, t, d)).operations == forward_and_backward + 2 * d * scores  # the scores are computed again
    assert count(AUTO, Size(b, t, d)).operations == forward_and_backward + 2 * d * (scores + by_position)
    assert set(FORMS) >= {AUTO, "plain"}
