"""Tests of the comparison of fine-tuning with training from random weights, on a tiny model."""

from __future__ import annotations

import json

import pytest

from benchmarks.finetuning.__main__ import main
from benchmarks.measuring.results import RESULTS
from tests.samples.speech import write_manifest


def test_the_page_is_made_from_the_results(capsys):
    main(["table", str(RESULTS / "finetuning")])
    assert capsys.readouterr().out == (RESULTS / "finetuning" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_both_ways_are_trained_once_and_shown_on_the_page(ctc_file, tmp_path, capsys):
    train, dev = write_manifest(tmp_path, 8), write_manifest(tmp_path, 2, name="dev")
    given = ["run", "tiny", "--from", str(ctc_file), "--train", str(train), "--dev", str(dev), "--steps", "30"]
    given += ["--vocabulary", "20", "--batch", "4", "--peaks", "0.001", "--seeds", "1"]
    given += ["--output", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    main(given)
    main(given)  # every training was done
    runs = [json.loads(line) for line in (tmp_path / "results" / "tiny.jsonl").read_text().splitlines()]
    assert [(run["way"], run["peak_lr"]) for run in runs] == [("fine-tuned", 5e-4), ("from random weights", 1e-3)]
    assert all(run["steps"] == 30 and run["finite"] and "dev" in run["wer"] for run in runs)
    assert "these modules start untrained: decoder" in runs[0]["start"] and runs[0]["loss"] != runs[1]["loss"]
    capsys.readouterr()
    main(["table", str(tmp_path / "results")])
    page = capsys.readouterr().out
    assert "| fine-tuned | 0.0005 |" in page and "| from random weights | 0.001 |" in page
