"""Tests of the transducers benchmark: all models get the same data, and timestamps of correct words are compared."""

from __future__ import annotations

import argparse

from benchmarks.measuring.recordings import digits
from benchmarks.measuring.results import RESULTS
from benchmarks.transducers import timestamps
from benchmarks.transducers.__main__ import RECIPES, config
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest


def test_all_models_get_the_same_data_schedule_and_characters(tmp_path):
    for name in ("connected_train", "single_train", "connected_dev"):
        write_manifest(tmp_path, 10, name=name).rename(tmp_path / f"{name}.jsonl")
    args = argparse.Namespace(digits=tmp_path, steps=50, peak=1e-3, full_band=False, output=tmp_path)
    models = {name: config(name, args)[1] for name in RECIPES}
    for name, model in models.items():
        assert model.train_ds.manifest_filepath == [str(path) for path in digits(tmp_path).train]
        assert model.optim == models["hybrid"].optim and model.preprocessor.features == 40
        assert name == "tdt" or (model.labels and model.train_ds == models["hybrid"].train_ds)
    assert len({model.encoder["_target_"] for model in models.values()}) == 2
    args.full_band = True
    assert config("tdt", args)[1].preprocessor == config("hybrid", args)[1].preprocessor
    assert config("tdt", args)[1].preprocessor.features == 80


def word(text: str, start: float, end: float) -> dict[str, object]:
    return {"word": text, "start": start, "end": end}


def test_only_correct_words_at_their_aligned_position_are_compared():
    true = [word("one", 0.0, 1.0), word("two", 1.0, 2.0), word("two", 2.0, 3.0)]
    found = [word("two", 1.1, 1.9), word("nine", 1.9, 2.0), word("two", 2.2, 2.9)]
    pairs = list(timestamps.pairs(found, true))
    assert [(got["start"], want["start"]) for got, want in pairs] == [(1.1, 1.0), (2.2, 2.0)]


def test_the_page_of_benchmarks_describes_the_timestamps():
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    rows = [[cell.strip() for cell in line.split("|")] for line in (RESULTS / "timestamps.md").read_text().splitlines()]
    rows = [row for row in rows if len(row) > 5 and row[2] != "decoder" and "-" not in row[1]]
    assert len(rows) == 5 and {row[5] for row in rows} == {"100.0"} and "every correct word overlaps" in page
    starts = [int(row[6].split()[0]) for row in rows if row[2] == "transducer"]
    assert f"median error at the start of a word is {max(starts)} ms or less" in page
