"""Tests of the transducers benchmark: the loss equals NeMo's, and timestamps of correct words are compared."""

from __future__ import annotations

import argparse

import pytest
import torch
from nemo.collections.asr.losses.rnnt_pytorch import RNNTLossPytorch, TDTLossPytorch

from benchmarks.measuring.recordings import digits
from benchmarks.measuring.results import RESULTS
from benchmarks.measuring.tdt_loss import AntiDiagonalTDTLoss
from benchmarks.measuring.transducer_loss import AntiDiagonalTransducerLoss
from benchmarks.transducers import timestamps
from benchmarks.transducers.__main__ import RECIPES, config
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest


@pytest.mark.parametrize("frames, tokens", [(1, 1), (7, 3), (4, 6)])
def test_the_transducer_loss_by_anti_diagonals_equals_nemos_loss(frames, tokens):
    torch.manual_seed(0)
    acts = torch.randn(3, frames, tokens + 1, 5, requires_grad=True)
    labels = torch.randint(4, (3, tokens))
    act_lens, label_lens = torch.tensor([frames, max(1, frames - 2), 1]), torch.tensor([tokens, max(1, tokens - 1), 0])
    given = {"acts": acts, "labels": labels, "act_lens": act_lens, "label_lens": label_lens}
    expected = RNNTLossPytorch(blank=4, reduction=None)(**given)
    ours = AntiDiagonalTransducerLoss(blank=4)(**given)
    torch.testing.assert_close(ours, expected)
    weights = torch.tensor([1.0, 2.0, 3.0])
    (theirs,) = torch.autograd.grad((expected * weights).sum(), acts)
    (mine,) = torch.autograd.grad((ours * weights).sum(), acts)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("frames, tokens", [(1, 1), (7, 3), (4, 6)])
def test_the_loss_with_durations_equals_nemos_loss(frames, tokens, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)  # NeMo's equations run on a CPU too
    torch.manual_seed(0)
    durations = [0, 1, 2, 3, 4]
    acts = torch.randn(3, frames, tokens + 1, 5 + len(durations), requires_grad=True)
    labels = torch.randint(4, (3, tokens))
    act_lens, label_lens = torch.tensor([frames, max(1, frames - 2), 1]), torch.tensor([tokens, max(1, tokens - 1), 0])
    given = {"acts": acts, "labels": labels, "act_lens": act_lens, "label_lens": label_lens}
    expected = TDTLossPytorch(blank=4, durations=durations, reduction=None, sigma=0.02)(**given)
    ours = AntiDiagonalTDTLoss(blank=4, durations=durations, sigma=0.02)(**given)
    torch.testing.assert_close(ours, expected)
    weights = torch.tensor([1.0, 2.0, 3.0])
    (theirs,) = torch.autograd.grad((expected * weights).sum(), acts)
    (mine,) = torch.autograd.grad((ours * weights).sum(), acts)
    torch.testing.assert_close(mine, theirs)


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
