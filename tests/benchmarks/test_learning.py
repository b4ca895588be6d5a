"""Tests of the bench of learning: its data, its encoders, its page, and a training that was stopped."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from benchmarks.learning import phrases
from benchmarks.learning.__main__ import main
from benchmarks.learning.changes import CHANGES
from benchmarks.learning.data import DATA
from benchmarks.learning.encoders import ENCODERS
from benchmarks.learning.page import interval, page
from benchmarks.learning.train import Run
from benchmarks.measuring.encoders import counted
from benchmarks.measuring.recordings import json_lines
from benchmarks.measuring.results import RESULTS
from tests.samples.speech import write_manifest

pytest.importorskip("lightning.pytorch")
from lightning.pytorch import Trainer


def result(run: Run, dev: list[float], **more: object) -> str:
    line = asdict(run) | {"parameters": 1000, "loss": [9.0, 1.0], "dev": dev, "test": {}, "finite": True}
    return json.dumps(line | {"cpu_seconds": 120} | more)


def test_the_page_is_made_from_the_results(capsys):
    main(["table"])
    assert capsys.readouterr().out == (RESULTS / "learning" / "README.md").read_text(encoding="utf-8")


def test_phrases_are_pieces_of_whole_sentences_without_code():
    text = "Returns the number of elements in a list. Use ``x`` to set the size of it.\n\n"
    text += "Too short. A well-known, simple way to do it."
    found = list(phrases.sentences(text))
    assert found == ["returns the number of elements in a list", "a well known simple way to do it"]
    assert list(phrases.pieces(found[0])) == ["returns the number", "of elements in a"]


def test_the_encoders_have_nearly_equal_parameters_or_operations():
    counts = {name: counted(config) for name, config in ENCODERS.items()}
    ours = counts.pop("Squeezeformer")
    equal = counts.pop("Conformer, equal operations")
    assert equal["gflops_30_s"] == pytest.approx(ours["gflops_30_s"], rel=0.02)
    assert all(count["parameters"] == pytest.approx(ours["parameters"], rel=0.01) for count in counts.values())


@pytest.mark.parametrize("change", [name for name in CHANGES if "CR-CTC" in name])
def test_with_cr_ctc_the_encoder_sees_as_many_views_as_without(change):
    run = Run("Squeezeformer", change, steps=1000, batch=16)
    assert 2 * run.updates * run.utterances == run.steps * run.batch


def test_the_interval_is_the_interval_of_student():
    middle, width = interval([1.0, 2.0, 3.0])
    assert (middle, width) == (2.0, pytest.approx(4.3027 / 3**0.5, abs=1e-4))


def test_the_page_shows_every_training_and_compares_equal_seeds(tmp_path):
    ours, theirs = "Squeezeformer", "Conformer, equal operations"
    lines = [result(Run(ours, seed=seed), [80.0, 40.0 + seed]) for seed in range(3)]
    lines += [result(Run(theirs, seed=seed), [81.0, 50.0 + seed]) for seed in (2, 1, 0)]
    lines += [result(Run(ours, "DeepNorm", seed=seed), [80.0, 30.0 + 9 * seed]) for seed in range(2)]
    lines += [result(Run(ours, "DeepNorm, CR-CTC", seed=seed), [80.0, 27.0 + 9 * seed]) for seed in range(2)]
    lines += [result(Run(ours, peak=4.5e-3), [99.0, 20.0], finite=False)]
    lines += [result(Run(theirs, peak=5e-4, seed=seed), [70.0, 45.0 + seed]) for seed in range(3)]
    (tmp_path / "digits.jsonl").write_text("\n".join(lines))
    shown = page(tmp_path)
    assert f"| {ours} | 0.0015 | 1000 | 40.0, 41.0, 42.0 | 41.0 ± 1.0 | - | -39.0 | 2 |" in shown
    assert f"| {ours} | 0.0045 | 1000 | 100.0 | 100.0 |" in shown
    assert f"| {ours} | {theirs} | 0.0015 | 1000 | 3 | -10.0 ± 0.0 | -20 % | yes |" in shown
    assert f"| {ours} | {theirs} | 0.0015, 0.0005 | 1000 | 3 | -5.0 ± 0.0 | -11 % | yes |" in shown  # the best rates
    assert f"| {ours}, DeepNorm | {ours} | 0.0015 | 1000 | 2 | -6.0 ± 50.8 | -15 % | no |" in shown
    assert f"| {ours}, DeepNorm, CR-CTC | {ours}, DeepNorm | 0.0015 | 1000 | 2 | -3.0 ± 0.0 | -9 % | yes |" in shown


def test_a_difference_between_encoders_that_learned_nothing_is_not_shown(tmp_path):
    runs = [Run("Squeezeformer", seed=seed) for seed in range(2)]
    lines = [result(run, [100.0, 97.0]) for run in runs]
    lines += [result(Run("FastConformer", seed=seed), [100.0, 99.0]) for seed in range(2)]
    lines += [result(Run("Squeezeformer 8x", seed=seed), [100.0, 98.0]) for seed in range(2)]
    (tmp_path / "digits.jsonl").write_text("\n".join(lines))
    row = "| Squeezeformer 8x | FastConformer | 0.0015 | 1000 | 2 | -1.0 ± 0.0 | -1 % | no: neither has learned |"
    assert row in page(tmp_path)


@pytest.mark.slow
def test_a_stopped_training_continues_after_its_last_validation(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA, "digits", DATA["digits"]._replace(vocabulary=20))
    data = tmp_path / "work" / "digits"
    data.mkdir(parents=True)
    for name in ("train", "dev", "test"):
        write_manifest(data, 8 if name == "train" else 2, name=name).rename(data / f"{name}.jsonl")
    given = ["run", "digits", "--steps", "20", "--batch", "4", "--seeds", "0"]
    given += ["--encoders", "Squeezeformer", "--changes", "DeepNorm, CR-CTC", "--work", str(tmp_path / "work")]
    main([*given, "--output", str(tmp_path / "whole")])

    saved = Trainer.save_checkpoint

    def stop_after_the_fourth(trainer, *args, **more):
        saved(trainer, *args, **more)
        if trainer.global_step == 4:
            raise MemoryError

    monkeypatch.setattr(Trainer, "save_checkpoint", stop_after_the_fourth)
    with pytest.raises(MemoryError):
        main([*given, "--output", str(tmp_path / "stopped")])
    assert not (tmp_path / "stopped" / "digits.jsonl").exists()
    monkeypatch.setattr(Trainer, "save_checkpoint", saved)
    for _ in range(2):  # the second call has nothing to do
        main([*given, "--output", str(tmp_path / "stopped")])
    (whole,), (stopped,) = (json_lines(tmp_path / way / "digits.jsonl") for way in ("whole", "stopped"))
    assert len(stopped["dev"]) == 10 and stopped["finite"]
    assert (stopped["loss"], stopped["dev"]) == (whole["loss"], whole["dev"])
