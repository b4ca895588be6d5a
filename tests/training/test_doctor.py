"""Each message of the doctor is made to happen by a training: the loss, the texts, the data, and the estimate."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.integration.callbacks.doctor.first_steps import FirstSteps
from nemo_squeezeformer.integration.callbacks.doctor.loss_watch import LossWatch, has_risen
from nemo_squeezeformer.integration.callbacks.doctor.text_watch import TextWatch, plain
from nemo_squeezeformer.integration.callbacks.run_progress import loss_of
from tests.samples.asr_models import LETTERS, asr_model
from tests.samples.model_types.model_type import SMALL, spoken
from tests.samples.nemo_log import sent_to
from tests.samples.speech import RATE, noise

NORM = {"conv_norm_type": "layer_norm"}  # a step changes no statistics
NEVER = "exp_manager.checkpoint_callback_params.always_save_nemo=false"


@pytest.fixture
def log():
    """Return the messages of NeMo's log as a list."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    with sent_to(Keep()):
        yield found


def train(folder: Path, *overrides: str, recipe: str = "squeezeformer_ctc_char") -> None:
    torch.manual_seed(0)
    given = [*SMALL, *spoken(folder), NEVER, f"exp_manager.exp_dir={folder}/exp", *overrides]
    assert main(["train", recipe, *given, "--skip-audio-check"]) == 0


def one(log: list[str], begin: str) -> str:
    (message,) = [text for text in log if text.startswith(begin)]
    return message


@pytest.mark.slow
def test_a_rate_that_is_too_high_is_named_with_a_third_of_it(tmp_path, log):
    rate = ["model.optim.lr=0.5", "model.optim.sched.warmup_steps=6", "trainer.gradient_clip_val=0"]
    train(tmp_path, *rate, "trainer.max_epochs=10", "doctor.window=2")
    message = one(log, "The loss rises: its mean over 2 steps was")
    assert "start again with model.optim.lr=0.17" in message


@pytest.mark.slow
def test_only_blanks_are_said_after_the_given_number_of_steps(tmp_path, log):
    rate = ["model.optim.lr=0.01", "model.optim.sched.warmup_steps=2"]
    train(tmp_path, *rate, "trainer.max_epochs=12", "doctor.silent_after=24", "doctor.window=2")
    message = one(log, "After 24 steps, the model predicts only blanks")
    assert "The loss falls" in message and "the decoder first learns the blank" in message


@pytest.fixture(scope="module")
def two_cases(tmp_path_factory) -> tuple[Path, Path]:
    """Return a model with letters in both cases, and a manifest with the texts of the model in capitals."""
    folder = tmp_path_factory.mktemp("two_cases")
    labels = [*LETTERS, *(letter.upper() for letter in LETTERS if letter != " ")]
    model = asr_model(labels=labels, decoder={"vocabulary": labels, "num_classes": len(labels)}, encoder=NORM)
    paths = [str(folder / f"{seed}.wav") for seed in range(2)]
    for seed, path in enumerate(paths):
        soundfile.write(path, noise(2.0, seed), RATE)
    texts = [best.text.upper() for best in model.transcribe(paths, verbose=False)]
    assert all(len(text) > 3 for text in texts)
    rows = [{"audio_filepath": path, "duration": 2.0, "text": text} for path, text in zip(paths, texts)]
    (folder / "dev.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model.save_to(str(folder / "model.nemo"))
    return folder / "model.nemo", folder / "dev.json"


def test_errors_that_are_only_letter_case_are_explained(two_cases, tmp_path, log):
    model, dev = two_cases
    run = [*SMALL[4:], spoken(tmp_path)[0], f"model.validation_ds.manifest_filepath={dev}", NEVER]
    run += ["model.optim.lr=1e-9", "trainer.max_epochs=1", f"exp_manager.exp_dir={tmp_path}/exp"]
    assert main(["train", "--from", str(model), *run]) == 0
    message = one(log, "The word error rate of the first validation batch is")
    assert "without letter case and punctuation" in message and "Write both manifests in the same way" in message
    assert any("characters of the validation text never occur in the training text" in text for text in log)


def test_data_that_training_cannot_use_is_named_before_the_first_step(tmp_path, log):
    """The validation is on training data, one utterance is too short, and the recordings have a low sample rate."""
    given = spoken(tmp_path)
    manifest = tmp_path / "train.json"
    short = {"audio_filepath": "short.wav", "duration": 0.2, "text": "seven seven seven"}
    soundfile.write(tmp_path / "short.wav", noise(0.2)[::2], 8000)
    rows = manifest.read_text() + json.dumps(short) + "\n"
    manifest.write_text(rows)
    run = [*SMALL, given[0], f"model.validation_ds.manifest_filepath={manifest}", NEVER, "trainer.max_steps=1"]
    assert main(["train", "squeezeformer_ctc_char", *run, f"exp_manager.exp_dir={tmp_path}/exp"]) == 0
    assert "5 of 5 recordings of the validation data are also training data" in one(log, "5 of 5 recordings")
    assert "The worst: " in one(log, "1 of 5 utterances of the training data")
    assert sum("1 of 5 recordings of the training data have a sample rate of 8000 Hz" in text for text in log) == 1


@pytest.mark.parametrize("decoder", ["ctc", pytest.param("transducer", marks=pytest.mark.slow)])
def test_the_time_and_the_memory_are_estimated_after_the_first_steps(decoder, tmp_path, log):
    # A step of the first recipe has two batches.
    settings = {
        "ctc": ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=8"],
        "transducer": ["model.loss.loss_name=pytorch", "transducer.hidden=16", "trainer.max_epochs=4"],
    }
    train(tmp_path, *settings[decoder], "doctor.estimate_after=5", recipe=f"squeezeformer_{decoder}_char")
    message = one(log, "After 5 steps: ")
    assert "so the last 3 steps take 0:00:" in message and "GiB with batches of up to 2 s" in message


def test_the_time_of_a_validation_is_not_the_time_of_a_step(monkeypatch, log):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    first, model = FirstSteps(10), SimpleNamespace(device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_step=0, is_global_zero=True, estimated_stepping_batches=30)
    first.on_train_start(trainer, model)
    for step in range(10):
        first.on_train_batch_start(trainer, model, None, step)
        now[0] += 2.0
        trainer.global_step += 1
        first.on_train_batch_end(trainer, model)
        if step % 3 == 2:
            first.on_validation_start(trainer, model)
            now[0] += 100.0
    assert "After 10 steps: 2.00 s for a step, so the last 20 steps take 0:00:40" in one(log, "After 10 steps")


def test_the_watch_and_the_bar_use_the_loss_of_a_batch_and_not_its_share_of_a_step():
    trainer: Any = SimpleNamespace(accumulate_grad_batches=4, global_step=1)
    watch, model = LossWatch(window=1), SimpleNamespace(cfg={})
    for _ in range(4):
        watch.on_train_batch_end(trainer, model, {"loss": torch.tensor(25.0)}, None, 0)
    assert watch.mean == 100.0 and loss_of(trainer, torch.tensor(25.0)) == 100.0
    assert loss_of(trainer, {}) is None


def test_a_resumed_run_continues_with_the_means_and_repeats_no_warning(log):
    optimizer = SimpleNamespace(param_groups=[{"lr": 1.0}])
    trainer: Any = SimpleNamespace(accumulate_grad_batches=1, global_step=1, optimizers=[optimizer])
    model = SimpleNamespace(cfg={})
    loss, resumed_loss = LossWatch(window=1), LossWatch(window=1)
    text, resumed_text = TextWatch(loss, silent_after=1), TextWatch(resumed_loss, silent_after=1)
    for value in (9.0, 1.0, 8.0):
        loss.on_train_batch_end(trainer, model, {"loss": torch.tensor(value)}, None, 0)
    text.judge([""], ["one"], 2, model)
    resumed_loss.load_state_dict(loss.state_dict())
    resumed_text.load_state_dict(text.state_dict())
    resumed_loss.on_train_batch_end(trainer, model, {"loss": torch.tensor(7.0)}, None, 0)
    resumed_text.judge([""], ["one"], 3, model)
    assert (resumed_loss.first, resumed_loss.mean, resumed_loss.lowest) == (9.0, 7.0, (1.0, 1))
    assert one(log, "The loss rises") and one(log, "After 2 steps, the model predicts only blanks")


@pytest.mark.parametrize(
    "settings", [["doctor.window=null", "doctor.silent_after=null", "doctor.estimate_after=0"], ["doctor=0"]], ids=str
)
def test_null_and_0_turn_the_warnings_and_the_estimate_off(settings, tmp_path, log):
    train(tmp_path, "model.optim.lr=1e-9", "trainer.max_epochs=2", *settings)
    assert not [each for each in log if "The loss rises" in each or "only blanks" in each or "After" in each]


def test_a_loss_has_risen_if_half_of_its_fall_is_lost():
    assert has_risen(first=100.0, lowest=20.0, mean=70.0) and not has_risen(first=100.0, lowest=20.0, mean=50.0)
    assert has_risen(first=4.0, lowest=3.9, mean=8.0) and not has_risen(first=4.0, lowest=3.9, mean=4.5)
    assert not has_risen(first=100.0, lowest=0.1, mean=1.0)


def test_plain_text_has_no_case_and_no_signs():
    assert plain("Größe, it's  NINE!") == "grösse its nine"
