"""Tests of the comparison of encoders: its page is made from the runs, and the README quotes it."""

from __future__ import annotations

import json

from benchmarks.measuring.results import RESULTS
from benchmarks.side_by_side.__main__ import main
from benchmarks.side_by_side.runs import best_peak, done
from tests.samples.paths import ROOT


def test_the_page_of_the_comparison_is_made_from_the_runs(capsys):
    main(["table", str(RESULTS / "side_by_side")])
    assert capsys.readouterr().out == (RESULTS / "side_by_side" / "README.md").read_text()


def test_the_readme_quotes_the_comparison():
    page = (ROOT / "README.md").read_text()
    timed = json.loads((RESULTS / "side_by_side" / "time.json").read_text())
    runs = done(RESULTS / "side_by_side" / "digits.jsonl")
    names = {
        "Squeezeformer": "Squeezeformer",
        "Conformer": "NeMo's Conformer",
        "Squeezeformer 8x": "Squeezeformer, `rate=8x`",
        "FastConformer": "NeMo's FastConformer",
    }
    for name, quoted in names.items():
        best = best_peak(runs, name, [5e-4, 1.5e-3, 4.5e-3])
        mine = [run["wer"] for run in runs if run["architecture"] == name and run["peak_lr"] == best]
        cells = [quoted, f"{timed[name]['step_ms']} ms", f"{timed[name]['gflops_30_s']:.2f}"]
        cells += [", ".join(f"{wer[which]:.1f}" for wer in mine) + " %" for which in ("seen", "unseen")]
        assert f"| {' | '.join(cells)} |" in page
