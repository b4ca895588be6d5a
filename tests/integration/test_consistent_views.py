"""Tests of the callback of CR-CTC on models of NeMo: the loss of a training step, and the parts that do not change."""

from __future__ import annotations

import dataclasses

import lightning.pytorch as lightning
import pytest
import torch

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.callbacks.consistent_views import ConsistentViews, add_callback, twice
from nemo_squeezeformer.integration.losses.consistency import consistency_of_rows
from tests.samples.asr_models import asr_model

AUDIO = torch.randn(2, 32000, generator=torch.Generator().manual_seed(0))
BATCH = (AUDIO, torch.tensor([32000, 20000]), torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
MASKS = {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation", "time_masks": 5, "time_width": 0.05}


class Step:
    """One training step of a model with the callback.

    Attributes:
        loss: the loss of the step.
        logged: the logged values, by name.
        features: the features after SpecAugment, (B, F, T).
        heads: the inputs and the value of each CTC loss in the order of the calls.
    """

    def __init__(self, model, monkeypatch, weight: float = 0.2) -> None:
        self.logged: dict = {}
        self.heads: list = []
        monkeypatch.setattr(model, "log", self.logged.__setitem__, raising=False)
        monkeypatch.setattr(model, "log_dict", lambda values, **_: self.logged.update(values), raising=False)
        model.setup_optimization()  # training_step logs the learning rate
        trainer = model._trainer = lightning.Trainer(accelerator="cpu", logger=False, log_every_n_steps=1)
        callback = ConsistentViews(weight)
        callback.on_fit_start(trainer, model)
        model.encoder.register_forward_pre_hook(self.see, with_kwargs=True)
        ctc = model.ctc_loss if hasattr(model, "ctc_loss") else model.loss
        ctc.register_forward_hook(lambda _, __, given, value: self.heads.append((given, value)), with_kwargs=True)
        torch.manual_seed(0)
        outputs = model.train().training_step(BATCH, 0)
        self.loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        callback.teardown(trainer, model, "fit")

    def see(self, _, __, given):
        self.features = given["audio_signal"].detach()


@pytest.mark.parametrize("kind", ["ctc", "hybrid"])
def test_the_loss_is_the_mean_over_both_views_and_the_weighted_term(kind, monkeypatch):
    step = Step(asr_model(kind, spec_augment=MASKS), monkeypatch)
    ((given, ctc),) = step.heads
    assert len(given["log_probs"]) == len(given["targets"]) == 4
    term = consistency_of_rows(given["log_probs"], given["input_lengths"]).mean()
    torch.testing.assert_close(step.logged["train_consistency_loss"], term.detach())
    expected = ctc + 0.2 * term
    if kind == "hybrid":
        torch.testing.assert_close(step.logged["train_ctc_loss"], expected)
        expected = 0.7 * step.logged["train_rnnt_loss"] + 0.3 * expected
    torch.testing.assert_close(step.loss, expected)
    torch.testing.assert_close(step.logged["train_loss"], expected)
    assert term > 0.1 and not step.loss.isnan()
    step.loss.backward()


def test_the_two_views_of_an_utterance_have_other_masks(monkeypatch):
    step = Step(asr_model("ctc", spec_augment=MASKS), monkeypatch)
    first, second = step.features.chunk(2)
    changed = (first != second).any(1).any(1)
    assert changed.all()
    same = (first == second) | (first == 0) | (second == 0)
    assert same.all()  # the views are equal outside the masks


def test_without_masks_and_dropout_the_views_are_equal_and_a_warning_says_so(monkeypatch):
    said = []
    monkeypatch.setattr("nemo_squeezeformer.integration.callbacks.consistent_views.logging.warning", said.append)
    still = dict.fromkeys(("dropout", "dropout_att", "dropout_emb"), 0.0)
    step = Step(asr_model("ctc", encoder=still), monkeypatch)
    assert step.logged["train_consistency_loss"] < 1e-6
    assert sum("SpecAugment has no masks" in line for line in said) == 1


def test_each_loss_of_interctc_has_its_own_term(monkeypatch):
    inner = {"loss_weights": [0.2, 0.3], "apply_at_layers": [1, 3]}
    step = Step(asr_model("ctc", interctc=inner, spec_augment=MASKS), monkeypatch)
    terms = [consistency_of_rows(given["log_probs"], given["input_lengths"]).mean() for given, _ in step.heads]
    losses = [value + 0.2 * term for (_, value), term in zip(step.heads, terms, strict=True)]
    torch.testing.assert_close(step.loss, 0.5 * losses[0] + 0.2 * losses[1] + 0.3 * losses[2])
    torch.testing.assert_close(step.logged["train_consistency_loss"], terms[0].detach())


def loss_of_validation(model) -> torch.Tensor:
    with torch.no_grad():
        log_probs, lengths, _ = model.eval()(input_signal=BATCH[0], input_signal_length=BATCH[1])
        return model.loss(log_probs=log_probs, targets=BATCH[2], input_lengths=lengths, target_lengths=BATCH[3])


def test_the_loss_of_validation_and_the_model_are_not_changed():
    model, callback = asr_model("ctc", spec_augment=MASKS), ConsistentViews()
    weights, step, before = list(model.state_dict()), model.training_step, loss_of_validation(model)
    callback.on_fit_start(None, model)
    assert model.training_step is not step
    torch.testing.assert_close(loss_of_validation(model), before, rtol=0, atol=0)
    assert list(model.state_dict()) == weights
    callback.teardown(None, model, "fit")
    assert model.training_step is step and not model.loss._forward_hooks


class Save(lightning.Callback):
    """Save the weights of each process."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path):
    model = asr_model("ctc", spec_augment=MASKS, encoder={"conv_norm_type": "layer_norm"})
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model._train_dl = torch.utils.data.DataLoader([BATCH] * 4, batch_size=None)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[ConsistentViews(), Save(tmp_path)],
    )
    trainer.fit(model)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert one.keys() == before.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], before[name]) for name in one)


def test_an_error_in_training_gives_the_model_its_own_step_back():
    model, callback = asr_model("ctc"), ConsistentViews()
    step = model.training_step
    callback.on_fit_start(None, model)
    callback.on_exception(None, model, RuntimeError())
    assert model.training_step is step


def test_a_batch_is_repeated_in_every_form_of_nemo():
    assert [part.tolist() for part in twice((torch.tensor([1, 2]), torch.tensor([[3], [4]])))] == [
        [1, 2, 1, 2],
        [[3], [4], [3], [4]],
    ]
    assert twice([["a", "b"], None])[0] == ["a", "b", "a", "b"] and twice([["a"], None])[1] is None
    batch = dataclasses.make_dataclass("Batch", ["audio", "names", "times"])(torch.ones(2, 3), ["a", "b"], None)
    repeated = twice(batch)
    assert repeated.audio.shape == (4, 3) and repeated.names == ["a", "b", "a", "b"] and repeated.times is None
    with pytest.raises(UserError, match="batch of the type dict"):
        twice({"audio": torch.ones(2)})


def test_a_model_without_a_ctc_loss_and_a_negative_weight_are_refused():
    with pytest.raises(UserError, match="needs a model with a CTC decoder, but EncDecRNNTModel has no CTC decoder"):
        ConsistentViews().on_fit_start(None, asr_model("transducer"))
    hybrid = asr_model("hybrid")
    hybrid.ctc_loss_weight = 0
    with pytest.raises(UserError, match="no effect with model.aux_ctc.ctc_loss_weight=0"):
        ConsistentViews().on_fit_start(None, hybrid)
    with pytest.raises(UserError, match="consistency.weight=-1 is negative"):
        ConsistentViews(-1)


def test_the_callback_is_added_once_and_only_with_its_section():
    trainer = lightning.Trainer(accelerator="cpu", logger=False)
    for settings, expected in ((None, []), ({"weight": 0.5}, [0.5]), ({"weight": 0.2}, [0.5])):
        add_callback(trainer, settings)
        assert [each.weight for each in trainer.callbacks if isinstance(each, ConsistentViews)] == expected
