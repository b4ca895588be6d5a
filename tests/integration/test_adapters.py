"""Tests of PEFT adapters: the supported types, training as in NeMo, and saving with or without the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.modules.conformer_encoder import ConformerEncoderAdapter
from nemo.collections.asr.parts.submodules.adapters import multi_head_attention_adapter_module as attention
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from nemo.core.classes.mixins import adapter_mixins
from torch.testing import assert_close

import nemo_squeezeformer
from tests.samples.adapters import ATTENTION, LINEAR, NAMES, adapted_model, move
from tests.samples.asr_models import asr_model
from tests.samples.speech import write_manifest


def encodings(model: Any) -> torch.Tensor:
    """Return the encodings (2, D, T) of two utterances of noise. One utterance is padded."""
    audio = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, lengths = model.preprocessor(input_signal=audio, length=torch.tensor([16000, 11000]))
        return model.encoder(audio_signal=features, length=lengths)[0]


@pytest.mark.parametrize("position", ["rel_pos", "abs_pos", "rope", "tiny"])
def test_adapters_change_the_output_and_survive_saving(tmp_path, position):
    before = encodings(adapted_model(position=position, names=[]))
    model = adapted_model(position=position)
    assert model.cfg.encoder._target_ == "nemo_squeezeformer.SqueezeformerEncoderAdapter"
    assert_close(encodings(model), before, atol=1e-5, rtol=0)  # a new adapter is the identity
    move(model)
    adapted = encodings(model)
    model.set_enabled_adapters("houlsby", enabled=False)
    without_houlsby = encodings(model)
    model.set_enabled_adapters(enabled=False)
    assert_close(encodings(model), before, atol=0, rtol=0)
    model.set_enabled_adapters(enabled=True)
    assert sorted(model.get_enabled_adapters()) == ["attention", "houlsby"]
    assert min((adapted - without_houlsby).abs().max(), (without_houlsby - before).abs().max()) > 1e-3

    model.save_to(str(tmp_path / "adapted.nemo"))
    restored = ASRModel.restore_from(str(tmp_path / "adapted.nemo"), map_location="cpu").eval()
    assert_close(encodings(restored), adapted, atol=0, rtol=0)


@pytest.mark.parametrize("name", [None, "houlsby"])
def test_adapters_saved_without_the_model_can_be_loaded_into_another_model(tmp_path, monkeypatch, name):
    # The file also contains the configuration of the adapters.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    model = adapted_model()
    move(model)
    if name:
        model.set_enabled_adapters("attention", enabled=False)
    model.save_adapters(str(tmp_path / "adapters.pt"), name)
    base = adapted_model(names=[])
    before = encodings(base)
    base.load_adapters(str(tmp_path / "adapters.pt"), name, map_location="cpu")
    assert base.get_enabled_adapters() == ([name] if name else ["attention", "houlsby"])
    assert_close(encodings(base.eval()), encodings(model), atol=0, rtol=0)
    assert (encodings(base) - before).abs().max() > 1e-3


def test_types_that_nemo_2_pickled_with_adapters_can_be_loaded():
    """A file of adapters also contains the decoding options of the model, with a class that NeMo 3 does not have."""
    import importlib
    import pickle

    named = pickle.loads(b"cnemo.collections.asr.parts.k2.classes\nGraphIntersectDenseConfig\n.")
    assert isinstance(named, type) and named.__name__ == "GraphIntersectDenseConfig"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module("nemo.collections.asr.parts.k2.classes").no_such_name


@pytest.mark.parametrize("kind", ["ctc", "transducer", "hybrid"])
def test_training_adapters_does_not_change_the_other_weights(tmp_path, kind):
    """Train as NeMo's train_asr_adapter.py does. The statistics of batch norms do not change."""
    import lightning.pytorch as lightning

    manifest = write_manifest(tmp_path, utterances=2)
    model = adapted_model(kind)
    if kind == "hybrid":
        model.setup_optimization()
    model.setup_training_data(
        {"manifest_filepath": str(manifest), "sample_rate": 16000, "batch_size": 2, "labels": model.cfg.labels}
    )
    model.set_enabled_adapters(enabled=False)
    model.set_enabled_adapters("houlsby", enabled=True)
    model.freeze()
    model.train()
    model.unfreeze_enabled_adapters()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".adapter_layer.houlsby." in name for name in trained)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model)
    assert trainer.global_step == 2
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and moved <= trained
    # The adapters of all layers, also inside the U-Net.
    assert {name.split(".")[2] for name in moved} == {"0", "1", "2", "3"}


def test_the_supported_adapter_types_are_the_types_of_nemos_conformer():
    taken = adapted_model(names=[]).encoder.get_accepted_adapter_types()
    conformer = ConformerEncoderAdapter(feat_in=80, n_layers=1, d_model=16, n_heads=2)
    assert taken == conformer.get_accepted_adapter_types() and len(taken) == 3


def test_another_adapter_type_is_refused_by_name():
    with pytest.raises(ValueError, match="PositionalEncodingAdapter"):
        adapted_model(names=[]).add_adapter("positions", attention.PositionalEncodingAdapterConfig(d_model=16))


@pytest.mark.parametrize("position", ["rope", "abs_pos"])
def test_an_adapter_with_relative_positions_needs_an_encoder_with_relative_positions(position):
    with pytest.raises(ValueError, match=f"'relative' is a RelPosition.* self_attention_model='{position}' has no rel"):
        adapted_model(position=position, names=[]).add_adapter("relative", ATTENTION["rel_pos"])


@pytest.mark.parametrize("kind", ["rel_pos", "abs_pos"])
def test_an_attention_adapter_needs_an_encoder_without_local_attention(kind):
    model = asr_model(encoder={"self_attention_model": "rel_pos_local_attn", "att_context_size": [8, 8]})
    model.replace_adapter_compatible_modules()
    with pytest.raises(ValueError, match="is an attention adapter, which NeMo cannot use with .*rel_pos_local_attn"):
        model.add_adapter("attention", ATTENTION[kind])


def test_adapters_of_another_width_get_the_width_of_the_encoder():
    model = adapted_model(names=[])
    model.add_adapter("houlsby", LinearAdapterConfig(in_features=999, dim=4))
    assert model.encoder.layers[0].adapter_layer["houlsby"].module[0].normalized_shape == (16,)
    assert model.cfg.adapters.houlsby.in_features == 16


def test_adapters_are_chosen_by_module_name():
    model = adapted_model("transducer", names=["encoder:houlsby"])
    move(model)
    assert model.get_enabled_adapters() == ["houlsby"] and model.encoder.layers[1].is_adapter_available()


def test_an_encoder_with_adapters_records_the_outputs_of_the_layers():
    """InterCTC and the feature extractor get the output of a layer after the adapters."""
    from nemo.collections.asr.modules.conformer_encoder import ConformerMultiLayerFeatureExtractor

    model = adapted_model()
    move(model)
    encoder = nemo_squeezeformer.SqueezeformerEncoderAdapter(**_arguments(model)).eval()
    encoder.load_state_dict(model.encoder.state_dict(), strict=False)
    for name in NAMES:
        encoder.add_adapter(name, LINEAR if name == "houlsby" else ATTENTION["rel_pos"])
    encoder.load_state_dict(model.encoder.state_dict())
    features, lengths = torch.randn(1, 80, 61), torch.tensor([61])
    (last, *_), _ = ConformerMultiLayerFeatureExtractor(encoder.eval(), layer_idx_list=[3])(features, lengths)
    assert_close(last, encoder(audio_signal=features, length=lengths)[0], atol=0, rtol=0)


def _arguments(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model.cfg.encoder.items() if name != "_target_"}


def test_the_registry_maps_between_the_encoder_and_the_adapted_encoder():
    for name in ("nemo_squeezeformer.SqueezeformerEncoder", nemo_squeezeformer.SqueezeformerEncoder):
        found = adapter_mixins.get_registered_adapter(name)
        assert found is not None
        assert found.adapter_class is nemo_squeezeformer.SqueezeformerEncoderAdapter
        assert found.adapter_class_path == "nemo_squeezeformer.SqueezeformerEncoderAdapter"


@pytest.mark.slow
def test_a_model_with_adapters_exports_to_onnx(tmp_path: Path):
    import onnxruntime

    model = adapted_model()
    move(model)
    model.export(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    x, lengths = torch.randn(2, 80, 101), torch.tensor([101, 101])
    with torch.no_grad():
        expected = model.decoder(encoder_output=model.encoder(audio_signal=x, length=lengths)[0])
    (output,) = session.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
    assert_close(torch.from_numpy(output), expected, atol=1e-4, rtol=0)
