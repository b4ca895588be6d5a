"""Tests of the benchmark of sizes: the command, the page, the quoted table, and counted parameters and operations."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks.sizes import __main__ as benchmark
from benchmarks.sizes import page as sizes_page
from nemo_squeezeformer.analysis.sizes import PUBLISHED
from tests.samples.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "sizes.json"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_one_command_measures_sizes_and_makes_the_page(tmp_path):
    threads, output = torch.get_num_threads(), tmp_path / "sizes.json"
    benchmark.main(["--sizes", "tiny", "--seconds", "1", "3", "--patience", "0", "--output", str(output)])
    torch.set_num_threads(threads)
    made = json.loads(output.read_text())
    row = made["sizes"]["tiny"]
    assert row["parameters"] == 2_137_344
    for seconds in ("1", "3"):
        assert 0 < row["gflops"][seconds] < row["gflops_without_unet"][seconds]
        low, median, high = row["ms"][seconds]
        assert 0 < low <= median <= high and row["memory_mib"][seconds] > 0
    assert output.with_suffix(".md").read_text() == sizes_page.page(made)


def test_both_pages_quote_the_file():
    made = json.loads(RESULTS.read_text())
    assert list(made["sizes"]) == list(PUBLISHED)
    assert RESULTS.with_suffix(".md").read_text() == sizes_page.page(made)
    assert sizes_page.quoted(made) in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_counts_equal_the_published_numbers_and_a_new_count():
    made = json.loads(RESULTS.read_text())["sizes"]
    for name, published in PUBLISHED.items():
        assert made[name]["parameters"] == published.encoder_parameters
        assert made[name]["gflops"]["30"] == pytest.approx(published.gflops, abs=0.01)
        assert made[name]["gflops_without_unet"]["30"] == pytest.approx(published.gflops_without_unet, abs=0.01)
    assert benchmark.gflops("xs", 5) == made["xs"]["gflops"]["5"]
    assert benchmark.gflops("xs", 5, time_reduce_idx=None) == made["xs"]["gflops_without_unet"]["5"]


def test_published_word_error_rates_are_marked_as_published():
    page = RESULTS.with_suffix(".md").read_text()
    assert "We did not measure them" in page and "## Word error rates as published" in page
    assert "| m | 2.56 / 6.50 | 2.6 / 6.3 |" in page
    assert "authors' WER, published" in sizes_page.quoted(json.loads(RESULTS.read_text()))
