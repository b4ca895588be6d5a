"""Tests of the training of transducers: the loss without CUDA, and the loss in pieces of the batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nemo.collections.asr.losses.rnnt_pytorch import RNNTLossPytorch

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.callbacks.transducer_loss import TransducerLossWithoutCUDA, equal_loss
from nemo_squeezeformer.training.recipes import build, check, compose
from tests.samples.model_types import MODEL_TYPES
from tests.samples.model_types.model_type import signals

STILL = [  # no randomness, so that two runs can be compared
    "model.encoder.dropout=0",
    "model.encoder.dropout_att=0",
    "model.decoder.prednet.dropout=0",
    "model.joint.jointnet.dropout=0",
    "model.preprocessor.dither=0",
    "model.spec_augment=null",
    "model.train_ds.shuffle=false",
    "model.train_ds.batch_size=4",
    "trainer.gradient_clip_val=0",
    "trainer.max_steps=1",
]


@pytest.mark.parametrize("recipe", ["squeezeformer_transducer_char", "squeezeformer_hybrid_transducer_ctc_char"])
def test_the_loss_in_pieces_of_the_batch_equals_the_loss_of_the_whole_batch(recipe, tmp_path):
    given = [*MODEL_TYPES["EncDecRNNTModel"].overrides(tmp_path), *STILL]

    def step(*overrides: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = train(compose(recipe, [*given, *overrides]))
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        return {"loss": model.trainer.callback_metrics["train_loss"], **gradients}

    whole = step("model.joint.fuse_loss_wer=false")
    pieces = step("model.joint.fused_batch_size=3")
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)  # the order of the sums differs
    of_nemo = step("model.joint.fuse_loss_wer=false", "model.loss.loss_name=pytorch")
    torch.testing.assert_close(of_nemo, whole, rtol=1e-4, atol=1e-5)
    other = step("model.joint.fused_batch_size=3", "model.rnnt_reduction=mean_volume")
    assert (other["loss"] - whole["loss"]).abs() > 0.1


@pytest.mark.parametrize("recipe", ["squeezeformer_tdt_bpe", "squeezeformer_hybrid_tdt_ctc_bpe"])
def test_tdt_trains_the_whole_encoder_and_the_durations(recipe, tmp_path):
    torch.manual_seed(0)
    model = build(compose(recipe, MODEL_TYPES[recipe].overrides(tmp_path))).train()
    model.joint.set_fuse_loss_wer(False)
    samples, lengths = signals(tmp_path)
    targets, target_lengths = torch.tensor([[3, 5, 2], [4, 1, 0]]), torch.tensor([3, 2])
    encoded, encoded_lengths = model(input_signal=samples, input_signal_length=lengths)[:2]
    predicted, _, _ = model.decoder(targets=targets, target_length=target_lengths)
    joined = model.joint(encoder_outputs=encoded, decoder_outputs=predicted)
    durations = model.cfg.loss.tdt_kwargs.durations
    assert joined.shape[-1] == model.tokenizer.vocab_size + 1 + len(durations)

    model.loss._loss = equal_loss(model.loss._loss)
    model.loss._loss.omega = 0.0  # otherwise a step can leave out the durations
    batch = {"targets": targets, "input_lengths": encoded_lengths, "target_lengths": target_lengths}
    model.loss(log_probs=joined, **batch).backward()
    assert [name for name, weight in model.encoder.named_parameters() if not weight.grad.any()] == []
    assert model.joint.joint_net[-1].weight.grad[-len(durations) :].any(dim=1).all()


@pytest.mark.parametrize("recipe", ["squeezeformer_tdt_bpe", "squeezeformer_hybrid_transducer_ctc_char"])
def test_training_on_a_cpu_replaces_only_the_slow_loss(recipe, tmp_path):
    kind = MODEL_TYPES.get(recipe, MODEL_TYPES["EncDecHybridRNNTCTCModel"])
    loss = "tdt" if "tdt" in recipe else "warprnnt_numba"
    early = f"model.loss.{loss}_kwargs.fastemit_lambda=0.25"
    model = build(compose(recipe, [*kind.overrides(tmp_path), early]))
    before, named = model.loss._loss, dict(model.cfg.loss)
    for device, replaced in (("cuda", False), ("cpu", True)):
        TransducerLossWithoutCUDA().setup(on(device), model, "fit")
        assert (model.loss._loss is not before) is replaced
    ours = model.joint.loss._loss  # the joint network computes the loss of pieces of the batch
    assert ours is model.loss._loss and ours.fastemit_lambda == 0.25 and ours.blank == before.blank
    assert all(getattr(ours, name) == value for name, value in vars(before).items() if name in ("sigma", "omega"))
    assert dict(model.cfg.loss) == named


def on(device: str) -> Any:
    """Return a trainer whose strategy trains on the device."""
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


def test_other_losses_than_the_default_are_not_replaced(tmp_path):
    overrides = [*MODEL_TYPES["EncDecRNNTModel"].overrides(tmp_path), "model.loss.loss_name=pytorch"]
    model = build(compose("squeezeformer_transducer_char", overrides))
    TransducerLossWithoutCUDA().setup(on("cpu"), model, "fit")
    assert isinstance(model.loss._loss, RNNTLossPytorch)


def test_a_loss_for_cuda_only_is_refused_before_slow_work(tmp_path):
    overrides = [*MODEL_TYPES["EncDecRNNTModel"].overrides(tmp_path), "model.loss.loss_name=multiblank_rnnt"]
    with pytest.raises(UserError, match=r"model.loss.loss_name=multiblank_rnnt.*trainer.accelerator=cpu.*on a GPU"):
        check(compose("squeezeformer_transducer_char", overrides))
