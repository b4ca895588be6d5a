"""Tests of NeMo models with an optimized encoder: the same text and encodings, and no saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.parts.submodules.adapters import multi_head_attention_adapter_module as attention
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from torch.testing import assert_close

from tests.samples.asr_models import asr_model
from tests.samples.encoders import enliven, features
from tests.samples.speech import write_manifest

ROUNDING = 1e-5  # float32 rounding of other products, through four layers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("speech")
    write_manifest(folder, utterances=3)
    return sorted(map(str, folder.rglob("*.wav")))


def texts(model: Any, files: list[str]) -> list[str]:
    return [hypothesis.text for hypothesis in model.transcribe(files, batch_size=2, verbose=False, num_workers=0)]


def encodings(model: Any) -> torch.Tensor:
    x = features(2, 150, channels=80)
    with torch.no_grad():
        return model.encoder(audio_signal=x, length=torch.tensor([150, 100]))[0]


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_an_optimized_model_gives_the_same_text_repeatedly(kind, files):
    model = asr_model(kind)
    before, expected = texts(model, files), encodings(model)
    assert any(before)
    assert model.encoder.optimize_for_inference() is model.encoder
    for _ in range(2):
        assert texts(model, files) == before
        assert not any(module.training for module in model.encoder.modules())
    assert_close(encodings(model), expected, atol=ROUNDING, rtol=0)


def test_an_optimized_model_in_training_transcribes_but_does_not_train(files):
    model = asr_model()
    before = texts(model, files)
    model.train().encoder.optimize_for_inference()
    for _ in range(2):
        assert texts(model, files) == before
    model.train()
    with pytest.raises(RuntimeError, match="Restore the model again"):
        encodings(model)


def test_an_optimized_model_is_not_saved_and_a_restored_model_is_the_original(files, tmp_path):
    model = asr_model()
    before, expected = texts(model, files), encodings(model)
    model.save_to(str(tmp_path / "model.nemo"))
    model.encoder.optimize_for_inference()
    with pytest.raises(RuntimeError, match="Restore the model again"):
        model.save_to(str(tmp_path / "optimized.nemo"))
    with pytest.raises(RuntimeError, match="Restore the model again"):
        torch.save({"state_dict": model.state_dict()}, tmp_path / "model.ckpt")
    assert not (tmp_path / "optimized.nemo").exists()

    restored = ASRModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert_close(encodings(restored), expected, atol=0, rtol=0)
    assert texts(restored, files) == before
    restored.encoder.train()  # the restored encoder can be trained
    assert encodings(restored).isfinite().all()


@pytest.mark.parametrize("left", [8, 64])
def test_nemos_streaming_step_gives_the_same_output(left):
    streaming = {"streaming": True, "att_context_style": "chunked_limited", "att_context_size": [left, 3]}
    plain, fast = (asr_model(encoder=streaming).encoder for _ in range(2))
    fast.optimize_for_inference()
    caches = []
    for encoder in (plain, fast):
        encoder.setup_streaming_params()
        caches.append(encoder.get_initial_cache_state(batch_size=2))
    x = features(2, 160, channels=80)
    for at in range(0, 160, 16):
        chunk, n = x[:, :, max(at - 5, 0) : at + 16], min(at, 5) + 16
        steps = []
        for i, encoder in enumerate((plain, fast)):
            with torch.inference_mode():
                output, _, *caches[i] = encoder.cache_aware_stream_step(
                    chunk, torch.tensor([n, n]), *caches[i], drop_extra_pre_encoded=2 if at else 0
                )
            steps.append(output)
        assert steps[0].std() > 0.1
        assert_close(steps[1], steps[0], atol=ROUNDING, rtol=0)


def test_adapters_get_the_same_inputs():
    model = asr_model()
    model.replace_adapter_compatible_modules()
    without = encodings(model)
    model.add_adapter("houlsby", LinearAdapterConfig(in_features=16, dim=4))
    model.add_adapter("attention", attention.RelPositionMultiHeadAttentionAdapterConfig(n_head=2, n_feat=16))
    torch.manual_seed(1)
    for name, parameter in model.eval().encoder.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = encodings(model)
    assert (expected - without).abs().max() > 0.01
    model.encoder.optimize_for_inference()
    assert_close(encodings(model), expected, atol=ROUNDING, rtol=0)
    model.set_enabled_adapters(enabled=False)
    assert_close(encodings(model), without, atol=ROUNDING, rtol=0)


def test_the_attention_is_fixed_but_the_context_can_change():
    model = asr_model()
    plain = asr_model().encoder
    model.encoder.optimize_for_inference()
    for encoder in (plain, model.encoder):
        encoder.set_default_att_context_size([6, 4])
    x, lengths = features(2, 150, channels=80), torch.tensor([150, 100])
    with torch.no_grad():
        expected, output = (e(audio_signal=x, length=lengths)[0] for e in (plain, model.encoder))
    assert_close(output, expected, atol=ROUNDING, rtol=0)
    with pytest.raises(RuntimeError, match="Restore the model again"):
        model.change_attention_model("rel_pos_local_attn", [8, 8])
    assert_close(model.encoder(audio_signal=x, length=lengths)[0], expected, atol=ROUNDING, rtol=0)


def test_wide_layers_of_a_published_size_stay_within_rounding():
    model = asr_model(encoder={"d_model": 144, "n_layers": 8, "time_reduce_idx": 3, "subsampling_conv_channels": -1})
    enliven(model.encoder, seed=1)
    expected = encodings(model)
    assert expected.std() > 0.1
    model.encoder.optimize_for_inference()
    assert_close(encodings(model), expected, atol=ROUNDING, rtol=0)
