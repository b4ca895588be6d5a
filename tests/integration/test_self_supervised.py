"""Tests of self-supervised models: masking of the encoder's input, and transcription models that start from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.training import initial_weights
from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types import MODEL_TYPES

TYPES = {"ssl": "SpeechEncDecSelfSupervisedModel", "nest": "EncDecDenoiseMaskedTokenPredModel"}
STARTED = {"ctc": "EncDecCTCModel", "transducer": "EncDecRNNTModel"}


def pre_trained(kind: str, folder: Path, *overrides: str) -> Any:
    """Return a self-supervised model after two training steps."""
    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    return train(compose(f"squeezeformer_{kind}", [*MODEL_TYPES[TYPES[kind]].overrides(folder), *overrides]))


@pytest.fixture(scope="module", params=TYPES)
def source(request, tmp_path_factory):
    """A pre-trained model, its .nemo file and its checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    model = pre_trained(request.param, folder)
    (file,) = folder.rglob("*.nemo")
    return model, file, next(folder.rglob("*-last.ckpt"))


@pytest.mark.parametrize("kind", STARTED)
@pytest.mark.parametrize("init", ["init_from_nemo_model", "init_from_ptl_ckpt"])
def test_a_transcription_model_starts_from_a_pre_trained_encoder(source, kind, init, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    model, file, checkpoint = source
    path = str(file if init == "init_from_nemo_model" else checkpoint).replace("=", r"\=")
    given = [*MODEL_TYPES[STARTED[kind]].overrides(tmp_path), f"+{init}.ssl.path={path}"]
    cfg = compose(f"squeezeformer_{kind}_char", [*given, f"+{init}.ssl.include=[encoder]"])
    torch.manual_seed(2)
    started = build(cfg)
    decoder = {name: weight.clone() for name, weight in started.decoder.state_dict().items()}
    weight = "layers.0.feed_forward1.linear1.weight"
    assert not torch.equal(started.encoder.state_dict()[weight], model.encoder.state_dict()[weight])

    if init == "init_from_nemo_model":
        started.maybe_init_from_pretrained_checkpoint(cfg)
    else:  # NeMo's checkpoints contain more than weights, and PyTorch refuses them inside NeMo
        initial_weights.load(cfg, started)
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(started.encoder.state_dict()[name], value, rtol=0, atol=0)
    for name, value in started.decoder.state_dict().items():
        torch.testing.assert_close(value, decoder[name], rtol=0, atol=0)


def test_subsampled_features_can_be_masked_instead_of_features(tmp_path):
    """Use the model without noise, because NeMo's denoising model gives the subsampling features of a wrong shape."""
    target = "model_target=nemo.collections.asr.models.ssl_models.EncDecMaskedTokenPredModel"
    hidden = ["model.mask_position=post_conv", "model.masking.block_size=8", "model.quantizer.combine_time_steps=1"]
    model = pre_trained("nest", tmp_path, target, *hidden).eval()
    samples, lengths = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)), torch.tensor([16000, 12000])
    seen, encoded_lengths, _, codes = model(input_signal=samples, input_signal_length=lengths)
    guessed, _, mask, _ = model(input_signal=samples, input_signal_length=lengths, apply_mask=True)
    assert encoded_lengths.tolist() == [25, 19]
    assert seen.shape[1] == codes.shape[1] == mask.shape[2] == 28  # from 112 feature frames
    assert mask.any() and not torch.equal(guessed, seen)


def test_a_loss_can_use_an_inner_layer_at_half_the_frame_rate(tmp_path):
    mlm = "model.loss_list.mlm"
    # Layers 1 and 2 of 4 are inside the U-Net.
    changes = [f"{mlm}.output_from_layer=layers.2", f"{mlm}.transpose_encoded=true"]
    model = pre_trained("ssl", tmp_path, *changes, "model.loss_list.contrastive.loss_alpha=0.0")
    assert all(model.trainer.callback_metrics[name].isfinite() for name in ("train_mlm", "val_loss"))
    moments = model.trainer.optimizers[0].state
    encoder = model.encoder
    parts = (encoder.layers[2].feed_forward2.linear2, encoder.layers[3].feed_forward2.linear2)
    assert [bool(moments[part.weight]["exp_avg_sq"].any()) for part in parts] == [True, False]
