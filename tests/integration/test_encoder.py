"""Tests of the encoder inside NeMo's models, including cases where the encoder of NeMo 2.7.3 fails."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel
from omegaconf import OmegaConf
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import log_probabilities, small_nemo_encoder
from tests.samples.encoders import SMALL, enliven, features, valid

LETTERS = list("abc '")


def ctc_model(**encoder) -> EncDecCTCModel:
    """Return a CTC model with a few letters, in evaluation mode."""
    torch.manual_seed(0)
    settings = {"_target_": "nemo_squeezeformer.SqueezeformerEncoder", **SMALL, "feat_in": 80, "time_reduce_idx": 1}
    model = EncDecCTCModel(
        OmegaConf.create(
            {
                "sample_rate": 16000,
                "labels": LETTERS,
                "preprocessor": {
                    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                    "features": 80,
                    "window_stride": 0.01,
                    "dither": 0.0,
                },
                "encoder": settings | encoder,
                "decoder": {
                    "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
                    "feat_in": None,
                    "num_classes": len(LETTERS),
                    "vocabulary": LETTERS,
                },
                "optim": {"name": "adamw", "lr": 1e-3},
            }
        )
    ).eval()
    enliven(model.encoder)
    return model


def test_a_restored_model_equals_the_saved_model(tmp_path):
    model = ctc_model()
    model.save_to(str(tmp_path / "model.nemo"))
    restored = ASRModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert type(restored.encoder) is SqueezeformerEncoder
    assert_close(log_probabilities(restored), log_probabilities(model), atol=0, rtol=0)


def test_nemo_reads_the_frame_rate_and_the_widths():
    assert small_nemo_encoder().subsampling_factor == 4 and small_nemo_encoder(subsampling=None).subsampling_factor == 1
    assert (small_nemo_encoder().d_model, small_nemo_encoder()._feat_in, small_nemo_encoder()._feat_out) == (16, 20, 16)
    assert small_nemo_encoder(feat_out=7)._feat_out == 7


def test_lengths_are_optional():
    made, x = small_nemo_encoder(), features(2, 61)
    assert_close(made(audio_signal=x)[0], made(audio_signal=x, length=torch.tensor([61, 61]))[0], atol=0, rtol=0)


def test_forward_does_not_wait_for_other_processes_and_keeps_no_position_tables(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a collective in forward")

    made = small_nemo_encoder(pos_emb_max_len=5000)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    made(audio_signal=features(1, 61), length=torch.tensor([61]))
    assert max(buffer.numel() for buffer in made.buffers()) <= 2 * made.d_model  # the statistics of batch norms


def test_without_a_padding_mask_unpadded_batches_give_the_same_output():
    made, batch = small_nemo_encoder(), {"audio_signal": features(2, 61), "length": torch.tensor([61, 61])}
    expected, _ = made(**batch)
    assert made.enable_pad_mask(False) is True
    assert_close(made(**batch)[0], expected, atol=0, rtol=0)
    assert made.enable_pad_mask(True) is False


def test_subsampled_input_bypasses_the_subsampling():
    made, x, lengths = small_nemo_encoder(), features(2, 61), torch.tensor([61, 40])
    expected, expected_lengths = made(audio_signal=x, length=lengths)
    subsampled, shorter = made.pre_encode(x=x.transpose(1, 2), lengths=lengths)
    output, output_lengths = made(audio_signal=subsampled, length=shorter, bypass_pre_encode=True)
    assert_close(output, expected, atol=0, rtol=0)
    assert output_lengths.tolist() == expected_lengths.tolist()


def test_nemo_can_wrap_the_subsampling():
    made, x, lengths = small_nemo_encoder(), features(2, 61), torch.tensor([61, 40])
    expected, _ = made(audio_signal=x, length=lengths)

    class Wrapper(torch.nn.Module):
        def __init__(self, wrapped):
            super().__init__()
            self.wrapped = wrapped

        def forward(self, x, lengths):
            return self.wrapped(x=x, lengths=lengths)

    made.pre_encode = Wrapper(made.pre_encode)
    assert_close(made(audio_signal=x, length=lengths)[0], expected, atol=0, rtol=0)


def test_incomplete_caches_are_refused():
    with pytest.raises(ValueError, match="go together"):
        small_nemo_encoder()(audio_signal=features(1, 8), cache_last_channel=torch.zeros(4, 1, 2, 16))


def test_attention_changes_on_a_loaded_model_with_its_weights_kept():
    model = ctc_model()
    before = log_probabilities(model)
    model.change_attention_model("abs_pos")
    assert model.cfg.encoder.self_attention_model == "abs_pos"
    assert (log_probabilities(model) - before).abs().max() > 1e-3
    limited = ctc_model()
    limited.change_attention_model("rel_pos", [4, 4])
    assert limited.cfg.encoder.att_context_size == [4, 4]
    assert (log_probabilities(limited) - before).abs().max() > 1e-3
    limited.change_attention_model("rel_pos", [-1, -1])
    assert_close(log_probabilities(limited), before, atol=0, rtol=0)
    with pytest.raises(ValueError, match="self_attention_model='rel_pos_local_attn' needs a window"):
        limited.change_attention_model("rel_pos_local_attn", [-1, -1])
    assert_close(log_probabilities(limited), before, atol=0, rtol=0)


def test_attention_that_is_frozen_stays_frozen_after_a_change():
    encoder = small_nemo_encoder()
    encoder.freeze()
    encoder.layers[0].self_attn.linear_q.weight.requires_grad_(True)
    encoder.change_attention_model("abs_pos")
    trained = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
    assert trained == ["layers.0.self_attn.linear_q.weight"]


def test_a_model_with_several_contexts_is_restored_after_it_got_a_single_context(tmp_path):
    contexts = {"att_context_size": [[4, 3], [4, 1]], "att_context_probs": [0.5, 0.5], "streaming": True}
    model = ctc_model(**contexts)
    model.change_attention_model("rel_pos", [8, 7])
    model.save_to(str(tmp_path / "changed.nemo"))
    assert restored(tmp_path / "changed.nemo").encoder.att_context_size == [8, 7]


def test_rotary_and_relative_positions_share_their_other_weights(tmp_path, caplog):
    model = ctc_model()
    before, parts = log_probabilities(model), "linear_pos.weight, pos_bias_u, pos_bias_v"
    model.save_to(str(tmp_path / "relative.nemo"))
    model.change_attention_model("rope")
    assert [record.message for record in caplog.records if "other positions" in record.message] == [
        "change_attention_model('rope'): other positions than before: 12 weights of attention have no place and are "
        f"left out ({parts}); the encoder must be trained again"
    ]
    rotary = log_probabilities(model)
    assert (rotary - before).abs().max() > 1e-3
    model.save_to(str(tmp_path / "rotary.nemo"))
    assert_close(log_probabilities(restored(tmp_path / "rotary.nemo")), rotary, atol=0, rtol=0)

    caplog.clear()
    config = ASRModel.restore_from(str(tmp_path / "relative.nemo"), return_config=True)
    config.encoder.self_attention_model = "rope"
    assert_close(log_probabilities(restored(tmp_path / "relative.nemo", config)), rotary, atol=0, rtol=0)
    assert caplog.text.count(f"12 weights of attention have no place and are left out ({parts})") == 1
    config.encoder.self_attention_model = "rel_pos"
    with pytest.raises(RuntimeError, match="Missing key.*linear_pos.weight"):
        restored(tmp_path / "rotary.nemo", config)

    caplog.clear()
    model.change_attention_model("rel_pos")
    assert caplog.text.count(f"12 weights of attention are new and untrained ({parts})") == 1
    assert (log_probabilities(model) - before).abs().max() > 1e-3


def restored(path: Path, config: Any = None) -> Any:
    return ASRModel.restore_from(str(path), override_config_path=config, map_location="cpu").eval()


def test_subsampling_in_parts_of_a_batch_gives_the_same_output():
    model = ctc_model()
    before = log_probabilities(model)
    model.change_subsampling_conv_chunking_factor(2)
    assert model.encoder.pre_encode.batch_parts == 2
    assert_close(log_probabilities(model), before, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="subsampling_conv_chunking_factor=3"):
        model.change_subsampling_conv_chunking_factor(3)


CHUNKS = {"att_context_style": "chunked_limited", "att_context_size": [8, 3], "conv_context_style": "dcc"}
LOCAL = {"self_attention_model": "rel_pos_local_attn", "att_context_size": [8, 4], "global_tokens": 1}


@pytest.mark.parametrize(
    "settings",
    [{}, {"att_context_size": [8, 4]}, CHUNKS, LOCAL, {"variant": "original"}, {"block": "mf_cf_glu"}],
    ids=["full", "limited", "dcc", "local", "original", "mf_cf_glu"],
)
def test_onnx_runtime_equals_torch_for_odd_even_and_padded_input(tmp_path, settings):
    import onnxruntime

    model = ctc_model(**settings)
    model.export(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for frames in (1, 37, 64, 101, 256, 311):
        x, lengths = features(2, frames, channels=80), torch.tensor([frames, max(1, frames - 13)])
        with torch.no_grad():
            encoded, encoded_lengths = model.encoder(audio_signal=x, length=lengths)
            expected = model.decoder(encoder_output=encoded)
        (output,) = session.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
        output = torch.from_numpy(output).transpose(1, 2)
        assert_close(
            valid(output, encoded_lengths), valid(expected.transpose(1, 2), encoded_lengths), atol=1e-4, rtol=0
        )


def test_compiles_to_one_graph():
    made, x, lengths = small_nemo_encoder(), features(2, 61), torch.tensor([61, 40])
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager", dynamic=False)
    expected, _ = made(audio_signal=x, length=lengths)
    assert_close(compiled(audio_signal=x, length=lengths)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_runs(dtype):
    with torch.autocast("cpu", dtype=dtype):
        output, _ = small_nemo_encoder()(audio_signal=features(2, 61), length=torch.tensor([61, 40]))
    assert output.isfinite().all()


def test_bfloat16_weights_run():
    output, _ = small_nemo_encoder().bfloat16()(audio_signal=features(2, 61).bfloat16(), length=torch.tensor([61, 40]))
    assert output.dtype == torch.bfloat16 and output.isfinite().all()


def _width(pickled: bytes) -> int:
    return pickle.loads(pickled).d_model


def test_an_encoder_can_be_unpickled_in_a_spawned_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_width, (pickle.dumps(small_nemo_encoder()),)) == 16
