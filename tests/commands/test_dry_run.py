"""`train --dry-run`: one step on the longest and on the widest batch, and whether they fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands.training.dry_run import batch_of
from nemo_squeezeformer.training.global_batch import utterances_of_batch
from nemo_squeezeformer.training.largest_batches import Shape, largest_batches
from nemo_squeezeformer.training.recipes import compose
from tests.samples.asr_models import asr_model
from tests.samples.model_types import MODEL_TYPES, model_class
from tests.samples.model_types.model_type import SMALL, spoken, tokenized


@pytest.fixture
def given(tmp_path) -> list[str]:
    """Data in which the longest utterance and the utterance with the most tokens differ."""
    data = spoken(tmp_path)
    manifest = tmp_path / "train.json"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[1] |= {"duration": 1.5, "text": "two"}
    rows[2]["text"] = "three three three"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*SMALL, *data, f"exp_manager.exp_dir={tmp_path}/exp"]


def test_the_longest_and_the_widest_batch_are_trained_and_nothing_is_written(given, tmp_path, capsys):
    assert main(["train", "squeezeformer_ctc_char", *given, "--dry-run", "--skip-audio-check"]) == 0
    longest, widest, last = capsys.readouterr().out.splitlines()[-3:]
    assert longest.startswith("longest ") and f"2 x 1.5 s with 3 tokens, as {tmp_path}/train.json, line 2" in longest
    assert widest.startswith("widest ") and "2 x 1 s with 20 tokens" in widest and "line 3" in widest
    assert "peak memory" in longest and last == "both batches fit"
    assert not (tmp_path / "exp").exists()


def test_recordings_that_training_would_refuse_are_refused(given, capsys):
    assert main(["train", "squeezeformer_ctc_char", *given, "--dry-run"]) == 2
    assert "line 2: duration 1.5 s is more than the 1.00 s of 'train_1.wav'" in capsys.readouterr().err


def test_the_tokens_of_a_tdt_model_are_not_its_durations(tmp_path, capsys):
    arguments = [*SMALL, *tokenized(tmp_path), "--dry-run"]
    assert main(["train", "squeezeformer_tdt_bpe", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "both batches fit"


@pytest.mark.parametrize("setting", ["+trainer.limit_train_batches=0.5", "+trainer.overfit_batches=1"])
def test_both_batches_run_with_fewer_batches_of_data(setting, given, capsys):
    assert main(["train", "squeezeformer_ctc_char", *given, "--dry-run", "--skip-audio-check", setting]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["longest", "widest", "both"]


def test_the_batches_of_lhotse_are_tried(given, capsys):
    lhotse = ["data=lhotse", "trainer.max_steps=10", "model.train_ds.batch_duration=8"]
    kept = [setting for setting in given if not setting.startswith("model.train_ds.batch_size")]
    assert main(["train", "squeezeformer_ctc_char", *kept, *lhotse, "--dry-run"]) == 0
    longest, widest, last = capsys.readouterr().out.splitlines()[-3:]
    assert ": 4 x 1.5 s" in longest and ": 7 x 1 s" in widest and last == "both batches fit"


@pytest.mark.parametrize(
    "recipe, name",
    [
        ("squeezeformer_ssl", "SpeechEncDecSelfSupervisedModel"),
        ("squeezeformer_transducer_bpe_eou", "EncDecRNNTBPEEOUModel"),
    ],
)
def test_models_that_need_other_batches_are_refused(recipe, name, tmp_path, capsys):
    """Self-supervision has no texts. The batches of a model that finds the end of an utterance also have this end."""
    given = MODEL_TYPES[name].overrides(tmp_path)
    if model_class(compose(recipe, given).model_target) is None:
        pytest.skip(f"this NeMo has no {name}")
    assert main(["train", recipe, *given, "--dry-run"]) == 2
    assert capsys.readouterr().err.endswith("needs other batches; leave out --dry-run\n")


def test_with_a_number_for_all_buckets_the_longest_bucket_has_this_number_of_utterances():
    train = {"is_tarred": True, "bucketing_batch_size": 8, "manifest_filepath": ["a.json", "b.json", "c.json"]}
    assert utterances_of_batch(OmegaConf.create({"model": {"train_ds": train}}), 16.0) == 8


def test_a_batch_that_does_not_fit_is_named_with_the_remedy(given, tmp_path, capsys):
    """An utterance of two years does not fit into any memory."""
    manifest = tmp_path / "train.json"
    manifest.write_text(manifest.read_text().replace("1.5", "7e7"))
    setting = ["model.train_ds.max_duration=1e9", "--skip-audio-check"]
    assert main(["train", "squeezeformer_ctc_char", *given, *setting, "--dry-run"]) == 1
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith("the longest batch does not fit (2 x 7e+07 s") and "a smaller model.train_ds" in shown


@pytest.mark.parametrize(
    "overrides, utterances",
    [
        ([], 2),
        (["data=lhotse", "model.train_ds.batch_duration=30", "model.train_ds.quadratic_duration=null"], 20),
        (["data=lhotse", "model.train_ds.batch_duration=30", "model.train_ds.batch_size=7"], 7),
        (["data=lhotse", "+model.train_ds.bucket_duration_bins=[1,2]", "+model.train_ds.bucket_batch_size=[9,5]"], 5),
    ],
)
def test_the_number_of_utterances_follows_the_settings_of_the_batches(given, overrides, utterances):
    cfg = compose("squeezeformer_ctc_char", [*given, *overrides, "trainer.max_steps=10"])
    if "lhotse" in str(overrides) and "batch_size=7" not in str(overrides):
        cfg.model.train_ds.batch_size = None
    longest, _ = largest_batches(cfg)
    assert (longest.utterances, longest.seconds) == (utterances, 1.5)


@pytest.mark.slow
def test_a_model_to_fine_tune_and_a_transducer_are_tried(given, ctc_file, capsys):
    trial = ["--dry-run", "--skip-audio-check"]
    assert main(["train", *given[4:], "--from", str(ctc_file), *trial]) == 0
    transducer = ["squeezeformer_transducer_char", "transducer.hidden=16", "model.loss.loss_name=pytorch"]
    assert main(["train", transducer[0], *given, *transducer[1:], *trial]) == 0
    assert capsys.readouterr().out.count("both batches fit") == 2


def test_a_batch_is_the_input_that_nemos_schema_describes(tokenizer, tmp_path: Path):
    """NeMo's OOMptimizer makes its batches from this schema, and trains the model with them."""
    model = asr_model("ctc", "bpe", tokenizer=tokenizer).train()
    inputs = model.oomptimizer_schema["inputs"]
    batch = batch_of(Shape("longest", 3, 0.5, 4, ""), 16000, inputs[2]["vocab_size"])
    kinds = [(type(each["type"].elements_type).__name__, each["seq_length"]) for each in inputs]
    assert kinds == [
        ("AudioSignal", "input"), ("LengthsType", "input"), ("LabelsType", "output"), ("LengthsType", "output")
    ]  # fmt: skip
    assert [tuple(part.shape) for part in batch] == [(3, 8000), (3,), (3, 4), (3,)]
    assert batch[2].max() < inputs[2]["vocab_size"] == model.tokenizer.vocab_size
    import lightning.pytorch as lightning

    trainer = lightning.Trainer(barebones=True, accelerator="cpu")
    trainer.log_every_n_steps = 1000000  # as NeMo's program sets it
    model.set_trainer(trainer)
    optimizer, _ = model.setup_optimization({"name": "adamw", "lr": 1e-7, "weight_decay": 0.0})
    before = model.encoder.pre_ln.weight.detach().clone()
    loss = model.training_step(batch, 0)["loss"].sum()
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and not torch.equal(before, model.encoder.pre_ln.weight)


def test_the_printed_recipe_is_a_file_from_which_nemos_oomptimizer_builds_the_model(tmp_path, capsys):
    import lightning.pytorch as lightning
    from nemo.collections.asr.models import EncDecCTCModelBPE

    given = [*SMALL, *tokenized(tmp_path), "trainer.max_epochs=1"]
    assert main(["train", "squeezeformer_ctc_bpe", *given, "--print"]) == 0
    (tmp_path / "recipe.yaml").write_text(capsys.readouterr().out)
    cfg = OmegaConf.load(tmp_path / "recipe.yaml")
    model = EncDecCTCModelBPE(cfg=cfg.model, trainer=lightning.Trainer(barebones=True, accelerator="cpu"))
    assert model.encoder.d_model == 32 and model.oomptimizer_schema["inputs"][2]["vocab_size"] == 16


def test_the_peak_memory_does_not_count_the_program_that_started_this_one():
    large = b"x" * 2**28
    program = (
        "from nemo_squeezeformer.process.peak_memory import peak_of_process as p; print(p(), len(b'x' * 2**26), p())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, _, after = map(int, done.stdout.split())
    assert 2**20 < before < len(large) / 2 and after - before > 2**25
