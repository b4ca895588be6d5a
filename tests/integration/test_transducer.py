"""Tests of the losses of transducers: computed in pieces or at once, and the TDT loss in NeMo's slow implementation."""

from __future__ import annotations

import pytest
import torch
from nemo.collections.asr.losses.rnnt import RNNTLoss

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError
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
    quicker_on_a_cpu = step("model.joint.fuse_loss_wer=false", "model.loss.loss_name=pytorch")
    torch.testing.assert_close(quicker_on_a_cpu, whole, rtol=1e-4, atol=1e-5)
    other = step("model.joint.fused_batch_size=3", "model.rnnt_reduction=mean_volume")
    assert (other["loss"] - whole["loss"]).abs() > 0.1


@pytest.mark.parametrize("recipe", ["squeezeformer_tdt_bpe", "squeezeformer_hybrid_tdt_ctc_bpe"])
def test_tdt_trains_the_whole_encoder_and_the_durations(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)  # this loss calls cuda() without need
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

    loss = RNNTLoss(
        num_classes=model.tokenizer.vocab_size,
        loss_name="tdt_pytorch",
        loss_kwargs={"durations": list(durations), "sigma": model.cfg.loss.tdt_kwargs.sigma},
    )
    assert loss._blank == model.loss._blank
    loss(log_probs=joined, targets=targets, input_lengths=encoded_lengths, target_lengths=target_lengths).backward()
    assert [name for name, weight in model.encoder.named_parameters() if not weight.grad.any()] == []
    assert model.joint.joint_net[-1].weight.grad[-len(durations) :].any(dim=1).all()


def test_tdt_without_cuda_is_refused_before_slow_work(tmp_path):
    cfg = compose("squeezeformer_tdt_bpe", MODEL_TYPES["squeezeformer_tdt_bpe"].overrides(tmp_path))
    with pytest.raises(UserError, match=r"model.loss.loss_name=tdt.*trainer.accelerator=cpu.*on a GPU"):
        check(cfg)
