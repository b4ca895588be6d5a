"""Tests of the benchmark of decoding: its counts, and the quotes of its results on the page."""

from __future__ import annotations

import re

import pytest

from benchmarks.decoding import measure
from benchmarks.decoding.page import page
from benchmarks.decoding.train import PLANS, overrides
from benchmarks.measuring import training
from benchmarks.measuring.recordings import Recordings
from benchmarks.measuring.results import RESULTS
from nemo_squeezeformer.training.recipes import compose
from tests.samples.paths import ROOT

RESULT = RESULTS / "decoding.md"


def rows(text: str) -> set[str]:
    lines = re.findall(r"^\|.*$", text, flags=re.MULTILINE)
    return {"|".join(cell.strip() for cell in line.split("|")) for line in lines}


def test_rare_words_are_counted_in_the_training_and_compared_at_their_aligned_position():
    words = measure.rare_words(["the cat"] * 4 + ["a dog"], ["the dog and a cat"])
    assert words == ["a", "and", "dog"]
    found = ["the dog and a dog", "and the cat"]
    assert measure.rare(found, ["the dog or a cat", "the cat"], words) == (2, 2, 3)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order():
    assert measure.area_under_roc([(0.9, True), (0.1, False)]) == 1.0
    assert measure.area_under_roc([(0.1, True), (0.9, False)]) == 0.0
    assert measure.area_under_roc([(0.5, True), (0.5, False), (0.7, True), (0.2, False)]) == pytest.approx(3.5 / 4)


def test_the_hybrid_recipe_has_all_settings_of_the_training(tmp_path):
    task = training.Task(Recordings([tmp_path / "train.jsonl"], tmp_path / "dev.jsonl", {}), tmp_path, 5, 16)
    config = compose("squeezeformer_hybrid_transducer_ctc_bpe", overrides(task))
    assert config.trainer.max_steps == 5 and config.model.train_ds.batch_size == 16
    assert {plan.data for plan in PLANS.values()} == {"digits", "speechocean"}


def test_the_page_of_results_is_made_from_the_files_and_the_page_decode_quotes_it():
    text = RESULT.read_text(encoding="utf-8")
    assert text == page(RESULTS / "decoding")
    decode = (ROOT / "docs" / "decode.md").read_text(encoding="utf-8")
    part = decode.split("## Measured gains")[1].split("\n## ")[0]
    quoted = {row for row in rows(part) if re.search(r"\d", row)}
    assert len(quoted) > 4 and quoted <= rows(text)
    numbers = set(re.findall(r"\d+\.\d+|\d+", text))
    spoken = re.sub(r"^\|.*$|\]\([^)]*\)|`[^`]*`", "", part, flags=re.MULTILINE)
    assert set(re.findall(r"\d+\.\d+", spoken)) <= numbers
