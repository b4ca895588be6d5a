"""Tests of the comparison of encoders: its page is made from the runs."""

from __future__ import annotations

from benchmarks.measuring.results import RESULTS
from benchmarks.side_by_side.__main__ import main


def test_the_page_of_the_comparison_is_made_from_the_runs(capsys):
    main(["table", str(RESULTS / "side_by_side")])
    assert capsys.readouterr().out == (RESULTS / "side_by_side" / "README.md").read_text()
