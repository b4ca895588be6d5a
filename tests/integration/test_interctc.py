"""Tests of InterCTC: CTC losses at inner layers, at the frame rate of each layer, in CTC and hybrid models."""

from __future__ import annotations

import pytest
import torch
from nemo.core.classes.mixins import AccessMixin
from torch.testing import assert_close

from tests.samples.asr_models import asr_model

LAYERS = [0, 1, 2, 3]  # layers 1 and 2 are inside the U-Net
BATCH = (
    torch.randn(2, 32000, generator=torch.Generator().manual_seed(0)),
    torch.tensor([32000, 20000]),
    torch.tensor([[1, 2, 3], [4, 5, 0]]),
    torch.tensor([3, 2]),
)


def model_with_losses_at(layers: list[int], kind: str, **encoder: str):
    weights = [0.5 / len(layers)] * len(layers)
    model = asr_model(kind, interctc={"loss_weights": weights, "apply_at_layers": layers}, encoder=encoder).train()
    model.setup_optimization()  # training_step logs the learning rate
    return model


class Log(dict):
    """The values that a training step logs."""

    def __call__(self, name, value, **_):
        self[name] = value

    def all(self, values, **_):
        self.update(values)


def training_step(model, monkeypatch) -> tuple[torch.Tensor, Log]:
    """Run NeMo's training step with a trainer at step 0, and return the loss and the logged values."""
    import lightning.pytorch as lightning

    model._trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, log_every_n_steps=1)
    log = Log()
    monkeypatch.setattr(model, "log", log, raising=False)
    monkeypatch.setattr(model, "log_dict", log.all, raising=False)
    result = model.training_step(BATCH, 0)
    return result["loss"] if isinstance(result, dict) else result, log


@pytest.mark.parametrize("kind, positions", [("ctc", "rel_pos"), ("hybrid", "rel_pos"), ("ctc", "rope")])
def test_every_layer_can_have_a_loss_also_inside_the_unet(kind, positions, monkeypatch):
    model = model_with_losses_at(LAYERS, kind, self_attention_model=positions)
    loss, log = training_step(model, monkeypatch)
    inner = {name: value for name, value in log.items() if "inter_ctc_loss_l" in name}
    assert sorted(inner) == [f"inter_ctc_loss_l{layer}" for layer in LAYERS]
    assert all(0 < value < 1e4 for value in inner.values()), inner
    assert all(f"inter_wer_l{layer}" in log for layer in LAYERS)
    loss.backward()
    assert all(layer.conv.depthwise_conv.weight.grad.abs().max() > 0 for layer in model.encoder.layers)
    assert not AccessMixin.get_module_registry(model.encoder)  # no records are kept between steps


@pytest.mark.parametrize("kind", ["ctc", "hybrid"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_loss_uses_the_frame_rate_of_the_layer(layer, kind):
    """CTC over the output recorded by a hook gives the same loss. Inside the U-Net, frames and lengths are halved."""
    model = model_with_losses_at([layer], kind)
    seen = {}
    model.encoder.layers[layer].register_forward_hook(lambda _, __, output: seen.update(x=output))
    AccessMixin.set_access_enabled(True, guid=model.model_guid)
    _, encoded_lengths = model(input_signal=BATCH[0], input_signal_length=BATCH[1])[:2]
    _, metrics = model.add_interctc_losses(torch.zeros(()), BATCH[2], BATCH[3], compute_wer=False)
    AccessMixin.set_access_enabled(False, guid=model.model_guid)
    model.encoder.reset_registry()

    decoder, loss = (model.ctc_decoder, model.ctc_loss) if kind == "hybrid" else (model.decoder, model.loss)
    inside = layer in (1, 2)
    lengths = (encoded_lengths + 1) // 2 if inside else encoded_lengths
    assert seen["x"].size(1) == (26 if inside else 52)  # features are padded to 208 frames
    log_probs = decoder(encoder_output=seen["x"].transpose(1, 2))
    expected = loss(log_probs=log_probs, targets=BATCH[2], input_lengths=lengths, target_lengths=BATCH[3])
    assert_close(metrics[f"inter_ctc_loss_l{layer}"], expected.detach())
    shorter = loss(log_probs=log_probs, targets=BATCH[2], input_lengths=lengths - 1, target_lengths=BATCH[3])
    assert (shorter - expected).abs() > 1e-3


def test_gradients_of_an_inner_loss_stop_at_its_layer():
    model = model_with_losses_at([2], "ctc")
    AccessMixin.set_access_enabled(True, guid=model.model_guid)
    log_probs, lengths, _ = model(input_signal=BATCH[0], input_signal_length=BATCH[1])
    last = model.loss(log_probs=log_probs, targets=BATCH[2], input_lengths=lengths, target_lengths=BATCH[3])
    loss, metrics = model.add_interctc_losses(last.clone(), BATCH[2], BATCH[3], compute_wer=False)
    AccessMixin.set_access_enabled(False, guid=model.model_guid)
    model.encoder.reset_registry()
    assert_close(loss, 0.5 * last + 0.5 * metrics["inter_ctc_loss_l2"])
    (loss - 0.5 * last).backward()
    gradients = [layer.conv.depthwise_conv.weight.grad.abs().max().item() for layer in model.encoder.layers]
    assert gradients[2] > 1e-3 > gradients[3]


def test_a_layer_that_does_not_exist_is_refused():
    model = model_with_losses_at([7], "ctc")
    AccessMixin.set_access_enabled(True, guid=model.model_guid)
    model(input_signal=BATCH[0], input_signal_length=BATCH[1])
    with pytest.raises(RuntimeError, match="layer 7"):
        model.add_interctc_losses(torch.zeros(()), BATCH[2], BATCH[3], compute_wer=False)
    AccessMixin.set_access_enabled(False, guid=model.model_guid)
