"""Tests of freezing and unfreezing: the parameters that train afterwards, and the mode of the encoder."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import asr_model, log_probabilities
from tests.samples.encoders import SMALL, features


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("speech") / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    return str(path)


def test_transcribing_does_not_change_the_model(file):
    model = asr_model(encoder={"dropout": 0.3})
    before = log_probabilities(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.transcribe([file], verbose=False, num_workers=0)
    assert not model.encoder.training and not any(module.training for module in model.encoder.modules())
    assert_close(log_probabilities(model), before, atol=0, rtol=0)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    model.encoder.train()
    assert (log_probabilities(model) - before).abs().max() > 1e-3  # the difference in training mode


def test_transcribing_during_training_returns_to_training_mode(file):
    model = asr_model().train()
    model.transcribe([file], verbose=False, num_workers=0)
    assert all(module.training for module in model.encoder.modules())


def test_a_frozen_encoder_stays_frozen_after_transcribing_until_it_is_unfrozen(file):
    model = asr_model().train()
    model.encoder.freeze()
    assert not model.encoder.training
    model.transcribe([file], verbose=False, num_workers=0)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())
    model.encoder.unfreeze()
    assert model.encoder.training and all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_unfreezing_restores_the_mode_and_the_gradients_before_freezing():
    for partial in (True, False):
        encoder = SqueezeformerEncoder(**SMALL, time_reduce_idx=1).train()
        encoder.freeze()
        encoder.freeze()  # a second freeze has no effect
        encoder.unfreeze(partial=partial)
        assert encoder.training
    encoder = encoder.eval()
    encoder.freeze()
    encoder.unfreeze()
    assert encoder.training  # a full unfreeze switches to training mode


def test_a_partial_unfreeze_never_switches_an_encoder_in_evaluation_mode_to_training_mode(monkeypatch):
    """Two models of one process share layers. One model may compute while the other model is unfrozen."""
    encoder = SqueezeformerEncoder(**SMALL).eval()
    encoder.layers[0].requires_grad_(False)
    modes = []
    original = type(encoder.layers[0]).train
    monkeypatch.setattr(
        type(encoder.layers[0]), "train", lambda self, mode=True: modes.append(mode) or original(self, mode)
    )
    encoder.freeze()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.unfreeze(partial=True)
    assert modes and not any(modes)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in encoder.named_parameters() if not name.startswith("layers.0.")}
    with pytest.raises(ValueError):
        encoder.unfreeze(partial=True)  # NeMo also refuses a partial unfreeze without a freeze


def test_frozen_first_layers_do_not_change_in_fine_tuning():
    """Freeze the subsampling and the first layers up to a layer inside the U-Net, and train the other layers."""
    encoder = SqueezeformerEncoder(**SMALL, time_reduce_idx=1).train()
    fixed = [encoder.pre_encode, *encoder.layers[:2]]
    for module in fixed:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        module.eval()  # batch norms also keep their statistics
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    output, _ = encoder(audio_signal=features(2, 61), length=torch.tensor([61, 40]))
    (output * features(2, 16, channels=16)).sum().backward()
    optimiser.step()
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    frozen = ("pre_encode.", "layers.0.", "layers.1.")
    assert not {name for name in moved if name.startswith(frozen)}
    assert {"pre_ln.weight", "time_reduce_layer.dw_conv.weight", "layers.2.conv.depthwise_conv.weight"} <= moved


def test_a_partial_unfreeze_keeps_the_choice_of_trained_parameters():
    encoder = SqueezeformerEncoder(**SMALL, time_reduce_idx=1)
    for parameter in encoder.layers[0].parameters():
        parameter.requires_grad = False
    encoder.freeze()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.unfreeze(partial=True)
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in encoder.named_parameters() if name.startswith("layers.0.")}
