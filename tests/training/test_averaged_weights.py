"""Tests of averaged weights: NeMo's exponential moving average in training, and the mean of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from nemo.utils.exp_manager import exp_manager
from omegaconf import OmegaConf
from torch.testing import assert_close

from nemo_squeezeformer.integration.callbacks import best_weights
from tests.samples.asr_models import asr_model
from tests.samples.speech import write_manifest

DECAY = 0.5


class Weights(lightning.Callback):
    """A callback that records one weight after each step and in validation."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, model: Any, *_: Any) -> None:
        self.steps.append(weight(model).clone())

    def on_validation_batch_end(self, trainer: Any, model: Any, *_: Any) -> None:
        self.validated.append(weight(model).clone())


def weight(model: Any) -> torch.Tensor:
    """Return a weight of a layer inside the U-Net."""
    return model.encoder.layers[1].feed_forward1.linear1.weight.detach()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Any, Weights, torch.Tensor, Path]:
    """A model after two epochs of one step with exp_manager's EMA, the recorded weights, and the checkpoint folder."""
    folder = tmp_path_factory.mktemp("ema")
    data = {"manifest_filepath": str(write_manifest(folder, utterances=2)), "sample_rate": 16000, "batch_size": 2}
    model = asr_model(optim={"name": "sgd", "lr": 0.01})
    data["labels"] = model.cfg.labels
    first, weights = weight(model).clone(), Weights()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[weights],
    )
    settings = {
        "exp_dir": str(folder),
        "name": "ema",
        "create_tensorboard_logger": False,
        "ema": {"enable": True, "decay": DECAY},
        "checkpoint_callback_params": {"monitor": "val_wer", "save_top_k": 2, "save_best_model": True},
    }
    log_dir = exp_manager(trainer, OmegaConf.create(settings))
    best_weights.add_callback(trainer)
    model.set_trainer(trainer)
    model.setup_training_data({**data, "shuffle": False})
    model.setup_multiple_validation_data({**data, "shuffle": False})
    model.setup_optimization()
    trainer.fit(model)
    return model, weights, first, Path(log_dir) / "checkpoints"


def test_validation_uses_the_moving_average(trained):
    _, weights, first, _ = trained
    average, expected = first, []
    for step in weights.steps:
        average = DECAY * average + (1 - DECAY) * step
        expected.append(average)
    assert len(weights.validated) == 2
    for seen, wanted, step in zip(weights.validated, expected, weights.steps):
        assert_close(seen, wanted, atol=1e-6, rtol=0)
        assert (seen - step).abs().max() > 1e-6


def test_both_weights_are_saved_and_training_continues_with_the_trained_weights(trained):
    model, weights, _, folder = trained
    assert_close(weight(model), weights.steps[-1], atol=0, rtol=0)
    saved = {path.name.endswith("-EMA.ckpt"): path for path in sorted(folder.glob("*last*.ckpt"))}
    name = "encoder.layers.1.feed_forward1.linear1.weight"
    states = {ema: torch.load(path, weights_only=False)["state_dict"] for ema, path in saved.items()}
    assert_close(states[False][name], weights.steps[-1], atol=0, rtol=0)
    assert_close(states[True][name], weights.validated[-1], atol=1e-6, rtol=0)


def test_the_nemo_file_has_the_averaged_weights(trained):
    from nemo.collections.asr.models import ASRModel

    _, weights, _, folder = trained
    saved = ASRModel.restore_from(str(folder / "ema.nemo"), map_location="cpu")
    assert_close(weight(saved), weights.validated[-1], atol=1e-6, rtol=0)
    assert (weight(saved) - weights.steps[-1]).abs().max() > 1e-6


def test_the_mean_of_checkpoints_loads_as_a_model(trained):
    """Average as in NeMo's checkpoint_averaging.py: sum all tensors, divide floating-point sums, load strictly."""
    model, _, _, folder = trained
    paths = [path for path in folder.glob("*.ckpt") if "EMA" not in path.name and "last" not in path.name]
    states = [torch.load(path, weights_only=False)["state_dict"] for path in paths]
    assert len(states) == 2
    mean = {name: sum(state[name] for state in states) for name in states[0]}
    mean = {name: value / 2 if value.is_floating_point() else value for name, value in mean.items()}
    other = asr_model()
    other.load_state_dict(mean, strict=True)
    name = "encoder.layers.1.feed_forward1.linear1.weight"
    assert_close(weight(other), (states[0][name] + states[1][name]) / 2)
    assert (weight(other) - weight(model)).abs().max() > 1e-6
    audio = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_probs, *_ = other.eval()(input_signal=audio, input_signal_length=torch.tensor([16000]))
    assert log_probs.isfinite().all()


def test_the_test_after_training_uses_the_averaged_weights_of_the_best_checkpoint(trained):
    model, weights, _, folder = trained
    seen = []

    class Seen(lightning.Callback):
        def on_test_batch_end(self, trainer: Any, model: Any, *_: Any) -> None:
            seen.append(weight(model).clone())

    trainer = model.trainer
    trainer.callbacks.append(Seen())
    model.setup_multiple_test_data({**model.cfg.train_ds, "shuffle": False})
    (best,) = (callback for callback in trainer.callbacks if isinstance(callback, best_weights.BestWeights))
    # Without its checkpoint, the last step is not the best: NeMo would test the moving average of the last step.
    best.writer.best_k_models = dict(list(best.writer.best_k_models.items())[:1])
    best.load_into(trainer, model)
    trainer.test(model)
    assert len(seen) == 1
    assert_close(seen[0], weights.validated[0], atol=1e-6, rtol=0)
    assert (seen[0] - weights.validated[1]).abs().max() > 1e-6
