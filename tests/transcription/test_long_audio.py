"""Audio of minutes and hours: local attention in restored models, and the option of `transcribe` for it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

pytest.importorskip("nemo.collections.asr")

from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder
from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures

from nemo_squeezeformer.commands import transcribe
from nemo_squeezeformer.core.kernels import fused_blocks
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.integration import piecewise_preprocessor
from nemo_squeezeformer.transcription import long_audio, memory
from tests.samples.asr_models import asr_model
from tests.samples.encoders import features

RATE = 16_000
SIX = {"att_context_size": [6, 6]}
CONFORMER = "nemo.collections.asr.modules.ConformerEncoder"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "sound.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(6 * RATE), RATE)
    return path


def restored(path: Path) -> Any:
    return ASRModel.restore_from(str(path), map_location="cpu").eval()


def log_probabilities(model: Any) -> torch.Tensor:
    """Return (2, T, V) of two utterances of noise. The second utterance is padded."""
    audio = torch.randn(2, 2 * RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_signal=audio, input_signal_length=torch.tensor([2 * RATE, RATE]))[0]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_restored_model_goes_to_local_attention_and_back_with_its_weights(ctc_file, tmp_path):
    model = restored(ctc_file)
    before, kept = log_probabilities(model), weights(model)
    model.change_attention_model("rel_pos", [6, 6])
    banded = log_probabilities(model)
    model.change_attention_model("rel_pos_local_attn", [6, 6])
    local = log_probabilities(model)
    assert_close(local, banded, atol=1e-5, rtol=0)
    assert (local - before).abs().max() > 1e-3

    model.save_to(str(tmp_path / "local.nemo"))
    again = restored(tmp_path / "local.nemo")
    assert again.cfg.encoder.self_attention_model == "rel_pos_local_attn"
    assert_close(log_probabilities(again), local, atol=0, rtol=0)

    again.change_attention_model("rel_pos", [-1, -1])
    assert_close(weights(again), kept, atol=0, rtol=0)
    assert_close(log_probabilities(again), before, atol=0, rtol=0)


def test_rotary_positions_keep_their_attention_in_a_window(monkeypatch):
    monkeypatch.setattr(fused_blocks, "QUERIES", 16)  # several blocks of queries
    model, windows = (asr_model(encoder={"self_attention_model": "rope"} | more) for more in ({}, SIX))
    before, kept = log_probabilities(model), weights(model)
    windows.load_state_dict(kept)
    assert long_audio.set_context(model, [6, 6]) == "att_context_size [6, 6]: 0.24 s, 0.24 s"
    assert model.cfg.encoder.self_attention_model == "rope"
    assert_close(weights(model), kept, atol=0, rtol=0)
    assert_close(log_probabilities(model), log_probabilities(windows), atol=0, rtol=0)
    assert (log_probabilities(model) - before).abs().max() > 1e-3
    long_audio.set_context(model, [-1, -1])
    assert_close(log_probabilities(model), before, atol=0, rtol=0)
    assert "grows with the square of the length" in str(long_audio.notice_of_memory(model, [recording(3600.0)], 16))


@pytest.mark.parametrize("form", [{"use_pytorch_sdpa": True}, {"attention": "plain"}])
def test_local_attention_replaces_every_implementation_of_full_attention(form, tmp_path):
    model, windows = asr_model(encoder=form), asr_model()
    for one in (model, windows):
        one.change_attention_model("rel_pos_local_attn", [6, 6])
    assert long_audio.in_blocks(model.encoder)
    model.save_to(str(tmp_path / "local.nemo"))
    again = restored(tmp_path / "local.nemo")
    x, lengths = features(2, 100, 80), torch.tensor([100, 60])
    with torch.no_grad():
        output, restored_output, expected = (
            one.encoder(audio_signal=x, length=lengths)[0] for one in (model, again, windows)
        )
    assert_close(output, expected, atol=0, rtol=0)
    assert_close(restored_output, expected, atol=0, rtol=0)
    again.change_attention_model("rel_pos", [-1, -1])
    assert again.encoder.attention == asr_model(encoder=form).encoder.attention


def test_an_optimized_encoder_refuses_another_attention():
    encoder = asr_model().encoder.optimize_for_inference()
    with pytest.raises(RuntimeError, match=r"change_attention_model\(\) of an encoder after optimize_for_inference"):
        encoder.change_attention_model("rel_pos_local_attn", [6, 6])


def test_an_optimized_encoder_keeps_its_local_attention():
    plain, optimised = (asr_model().encoder for _ in range(2))
    for encoder in (plain, optimised):
        encoder.change_attention_model("rel_pos_local_attn", [6, 6])
    optimised.optimize_for_inference()
    x, lengths = features(2, 700, 80), torch.tensor([700, 610])
    with torch.no_grad():
        output, expected = (one(audio_signal=x, length=lengths)[0] for one in (optimised, plain))
    assert_close(output, expected, atol=1e-5, rtol=0)


def transcripts(model: Path, sound: Path, tmp_path: Path, *options: str) -> str:
    output = tmp_path / "out.jsonl"
    parser = argparse.ArgumentParser()
    transcribe.add_arguments(parser)
    arguments = [str(model), str(sound), "--output", str(output), "--force", "--device", "cpu", *options]
    assert transcribe.main(parser.parse_args(arguments)) == 0
    return json.loads(output.read_text())["pred_text"]


def test_the_command_with_att_context_size_equals_nemo_with_change_attention_model(ctc_file, sound, tmp_path, capsys):
    model, expected = restored(ctc_file), {}
    for size in ([-1, -1], [3, 3]):
        model.change_attention_model("rel_pos" if size[0] < 0 else "rel_pos_local_attn", size)
        with torch.inference_mode():
            expected[size[0]] = model.transcribe([str(sound)], batch_size=1, verbose=False)[0].text
    assert transcripts(ctc_file, sound, tmp_path) == expected[-1]
    assert "att_context_size" not in capsys.readouterr().err
    assert transcripts(ctc_file, sound, tmp_path, "--att-context-size", "[3, 3]") == expected[3] != expected[-1]
    assert "att_context_size [3, 3]: 0.12 s, 0.12 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "encoder, size, words",
    [
        ({}, [0, 0], r"--att-context-size \[0, 0\]: att_context_size=\[0, 0\]: .* needs a window"),
        ({}, [8, 4, 2], r"frames to the left and right"),
        ({"self_attention_model": "abs_pos"}, [8, 8], "absolute positions"),
        ({"streaming": True, "att_context_size": [8, 3], "time_reduce_idx": None}, [8, 4], "nearest sizes are"),
    ],
)
def test_a_size_that_the_model_cannot_have_is_refused(encoder, size, words):
    with pytest.raises(UserError, match=words):
        long_audio.set_context(asr_model(encoder=encoder), size)


def test_a_model_with_chunks_keeps_its_chunks():
    model = asr_model(encoder={"streaming": True, "att_context_size": [8, 3], "time_reduce_idx": None})
    assert long_audio.set_context(model, [4, 3]) == "att_context_size [4, 3]: 0.16 s, 0.12 s"
    assert model.encoder.contexts.style == "chunked_limited" and model.encoder.att_context_size == [4, 3]
    assert not model.encoder.attention.local


@pytest.mark.parametrize("settings", [{}, {"normalize": "NA", "pad_to": 16}, {"normalize": "all_features"}])
@pytest.mark.parametrize("samples", [32_000, 32_077, 32_159])
def test_features_in_pieces_equal_the_features_of_the_whole_recording(samples, settings, monkeypatch):
    monkeypatch.setattr(piecewise_preprocessor, "FRAMES", 50)
    whole, pieces = (AudioToMelSpectrogramPreprocessor(**{"pad_to": 0, **settings}).eval() for _ in range(2))
    made, compute = [], FilterbankFeatures.forward
    monkeypatch.setattr(FilterbankFeatures, "forward", lambda *args: (made.append(args[1].size(1)), compute(*args))[1])
    pieces = piecewise_preprocessor.in_pieces(pieces)
    audio = torch.randn(3, samples, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([samples, samples - 4000, 1234])
    (output, shorter), (expected, same) = (
        preprocessor(input_signal=audio, length=lengths) for preprocessor in (pieces, whole)
    )
    assert_close(output, expected, atol=1e-5, rtol=0)
    assert_close(shorter, same)
    assert len(made) > 3 and max(made[:-1]) < samples / 2


def test_a_preprocessor_in_pieces_does_not_change_the_original_preprocessor(monkeypatch):
    monkeypatch.setattr(piecewise_preprocessor, "FRAMES", 50)
    whole = AudioToMelSpectrogramPreprocessor(normalize="per_feature", pad_to=16).eval()
    pieces = piecewise_preprocessor.in_pieces(whole)
    assert pieces is not whole and pieces.featurizer is whole.featurizer
    assert pieces.state_dict().keys() == whole.state_dict().keys() and not pieces.training
    given = {"input_signal": torch.randn(1, 32_000), "length": torch.tensor([32_000])}
    before = whole(**given)[0]
    with ThreadPool(4) as pool:
        threads = pool.map(lambda _: pieces(**given)[0], range(8))
    for after in [*threads, whole(**given)[0]]:
        assert_close(after, before, atol=1e-5, rtol=0)
    whole.featurizer.pad_to = 0  # as NeMo's transcribe() does to the model's featurizer
    assert_close(pieces(**given)[0], whole(**given)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{"exact_pad": True}, {"frame_splicing": 2}, {"window_stride": 0.002}])
def test_a_preprocessor_whose_features_need_the_whole_recording_is_not_replaced(settings):
    preprocessor = AudioToMelSpectrogramPreprocessor(**settings)
    assert piecewise_preprocessor.in_pieces(preprocessor) is preprocessor


def recording(seconds: float) -> Utterance:
    return Utterance({"audio_filepath": "hour.wav"}, "hour.wav", 0.0, seconds, 1)


def test_matrices_of_an_hour_are_refused_before_they_are_made():
    plain = asr_model(encoder={"attention": "plain"})
    with pytest.raises(UserError, match=r"hour.wav \(60 min\).* needs about .* GiB, .*--att-context-size \"\[128, 128"):
        long_audio.notice_of_memory(plain, [recording(3600.0)], 16)
    assert long_audio.notice_of_memory(plain, [recording(10.0)], 16) is None
    conformer = asr_model()
    settings = {"feat_in": 80, "n_layers": 1, "d_model": 16, "n_heads": 4, "xscaling": True, "pos_emb_max_len": 5000}
    # NeMo reads all three rates from the configuration.
    settings |= {"dropout": 0.0, "dropout_emb": 0.0, "dropout_att": 0.0}
    conformer.encoder = ConformerEncoder.from_config_dict({"_target_": CONFORMER, **settings})
    with pytest.raises(UserError, match="--att-context-size"):
        long_audio.notice_of_memory(conformer, [recording(3600.0)], 16)
    long_audio.set_context(conformer, [128, 128])
    assert long_audio.notice_of_memory(conformer, [recording(3600.0)], 16) is None


@pytest.mark.parametrize(
    "settings, ways",
    [
        ({"self_attention_model": "abs_pos"}, "free; cut the recording"),
        ({"att_context_size": [64, -1]}, 'free; pass --att-context-size "[128, 128]", or cut the recording'),
        ({"att_context_size": [64, 63], "att_context_style": "chunked_limited"}, "free; cut the recording"),
    ],
)
def test_the_ways_to_save_memory_are_possible_for_the_attention_of_the_model(settings, ways):
    """An attention that computes whole matrices needs their memory for each of its contexts."""
    model = asr_model(encoder={"attention": "plain", "att_context_size": [-1, -1]} | settings)
    with pytest.raises(UserError) as error:
        long_audio.notice_of_memory(model, [recording(3600.0)], 16)
    assert str(error.value).endswith(ways)


def test_full_attention_over_an_hour_is_allowed_with_a_notice():
    model = asr_model()
    assert "grows with the square of the length" in str(long_audio.notice_of_memory(model, [recording(3600.0)], 16))
    assert long_audio.notice_of_memory(model, [recording(60.0)], 16) is None
    long_audio.set_context(model, [128, 128])
    assert long_audio.notice_of_memory(model, [recording(3600.0)], 16) is None


def test_batches_have_at_most_an_hour_of_padded_audio():
    hour = 3600.0
    assert list(long_audio.batches([5.0] * 5, 2)) == [[0, 1], [2, 3], [4]]
    assert list(long_audio.batches([hour / 2, hour / 2, 10.0, 2 * hour, 1.0, 2.0], 16)) == [[0, 1], [2], [3], [4, 5]]
    assert list(long_audio.batches([10.0, hour / 2, 10.0], 16)) == [[0, 1], [2]]
    assert list(long_audio.batches([], 16)) == []


LINEAR = """
import re, time, torch
from pathlib import Path
from torch.utils.flop_counter import FlopCounterMode
from nemo_squeezeformer.core import SqueezeformerEncoder
torch.set_num_threads(1)
encoder = SqueezeformerEncoder(80, 6, 64, self_attention_model="rel_pos_local_attn", att_context_size=[128, 128]).eval()
times, operations = {}, {}
for minutes in (2, 10):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.randn(1, 80, 6000 * minutes))
    operations[minutes] = counter.get_total_flops()
with torch.inference_mode():
    for _ in range(3):
        for minutes in (2, 10):
            x = torch.randn(1, 80, 6000 * minutes)
            begun = time.thread_time()
            encoder(x)
            times.setdefault(minutes, []).append(time.thread_time() - begun)
least = {minutes: min(each) for minutes, each in times.items()}
# ru_maxrss would also count the memory of the program that starts this program.
gib = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
print(operations[10] / operations[2] / 5, least[10] / least[2] / 5, gib)
"""


@pytest.mark.slow
def test_ten_minutes_take_five_times_as_long_as_two_and_little_memory():
    kept = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}  # as ``keep_memory`` does
    run = subprocess.run(
        [sys.executable, "-c", LINEAR], capture_output=True, text=True, check=True, env={**os.environ, **kept}
    )
    operations, time, gib = map(float, run.stdout.split())
    assert operations == pytest.approx(1, rel=0.02)  # per minute of 10 minutes, divided by per minute of 2 minutes
    # Usually 1.3, because of the processor's caches and of other programs.
    assert time < 2, f"per minute, 10 minutes of audio take {time:.2f} times as long as 2 minutes"
    assert gib < 1.5


def test_few_kernels_are_kept_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1")  # the value before the test returns after the test
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    memory.limit_kernels()
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 1024
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
    memory.limit_kernels()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "1024"
