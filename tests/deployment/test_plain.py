"""Tests that models as safetensors return exactly the outputs of the NeMo models, and load without NeMo."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys

import pytest
import sentencepiece
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import open_dict

from nemo_squeezeformer import core, plain
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram
from tests.samples import original_weights
from tests.samples.asr_models import asr_model
from tests.samples.encoders import SMALL, features, small_encoder

LENGTHS = torch.tensor([200, 133])
ORIGINAL = {"_target_": "nemo_squeezeformer.OriginalMelSpectrogramPreprocessor", "normalize": "utterance"}


@pytest.fixture(scope="module")
def models(tokenizer):
    return {
        "characters": asr_model("ctc"),
        "word pieces": asr_model("ctc", "bpe", tokenizer=tokenizer),
        "hybrid": asr_model("hybrid", "bpe", tokenizer=tokenizer),
        "transducer": asr_model("transducer"),
        "rotary": asr_model("ctc", encoder={"self_attention_model": "rope", "rope_base": 500.0}),
        "original": asr_model("ctc", encoder={"variant": "original"}, preprocessor=ORIGINAL),
    }


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    parent = tmp_path_factory.mktemp("plain")
    for name, model in models.items():
        plain.save(model, parent / name)
    return parent


def config_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def outputs(model):
    """Return encodings, their lengths, and the log-probabilities of the CTC decoder or None, of a NeMo model."""
    with torch.no_grad():
        encoded, lengths, *_ = model.encoder(audio_signal=features(2, 200, channels=80), length=LENGTHS)
        head = getattr(model, "ctc_decoder", model.decoder)
        log_probs = head(encoder_output=encoded) if hasattr(head, "decoder_layers") else None
    return encoded, lengths, log_probs


@pytest.mark.parametrize("name", ["characters", "word pieces", "hybrid", "rotary", "original"])
def test_a_model_with_ctc_returns_the_same_log_probabilities_and_texts(models, folders, name):
    model, loaded = models[name], plain.load(folders / name)
    assert isinstance(loaded, plain.SqueezeformerCTC) and not loaded.training
    _, lengths, expected = outputs(model)
    with torch.no_grad():
        log_probs, loaded_lengths = loaded(features(2, 200, channels=80), LENGTHS)
    assert torch.equal(log_probs, expected) and torch.equal(loaded_lengths, lengths)
    decoding = model.ctc_decoding if name == "hybrid" else model.decoding
    texts = [hypothesis.text for hypothesis in decoding.ctc_decoder_predictions_tensor(log_probs, lengths)]
    assert loaded.texts(log_probs, lengths) == texts and all(texts)


def test_only_the_encoder_of_a_transducer_is_saved(models, folders):
    loaded = plain.load(folders / "transducer")
    assert type(loaded) is core.SqueezeformerEncoder and config_of(folders / "transducer")["ctc"] is None
    encoded, lengths, _ = outputs(models["transducer"])
    with torch.no_grad():
        found, found_lengths = loaded(features(2, 200, channels=80), LENGTHS)
    assert torch.equal(found, encoded) and torch.equal(found_lengths, lengths)


def test_the_folder_contains_the_tokenizer_of_word_pieces(models, folders):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folders / "word pieces" / "tokenizer.model"))
    assert pieces.encode("three") == models["word pieces"].tokenizer.text_to_ids("three")
    assert not (folders / "characters" / "tokenizer.model").exists()


def test_the_config_contains_every_argument_of_the_encoder(folders):
    arguments = list(inspect.signature(core.SqueezeformerEncoder).parameters)
    for folder in folders.iterdir():
        assert list(config_of(folder)["encoder"]) == arguments


def test_the_config_describes_the_features_and_original_features_need_no_nemo(models, folders):
    described = config_of(folders / "characters")["features"]
    assert described["class"] == "AudioToMelSpectrogramPreprocessor"
    assert described["settings"]["normalize"] == "per_feature" and described["settings"]["mel_norm"] == "slaney"
    described = config_of(folders / "original")["features"]
    assert described["class"] == "OriginalMelSpectrogram"
    samples, lengths = torch.randn(2, 8000), torch.tensor([8000, 5000])
    expected, frames = models["original"].preprocessor(input_signal=samples, length=lengths)
    made, made_frames = OriginalMelSpectrogram(**described["settings"])(samples, lengths)
    assert torch.equal(made, expected) and torch.equal(made_frames, frames)


def test_the_original_variant_differs_from_the_nemo_variant(folders, tmp_path):
    (tmp_path / "other").mkdir()
    config = config_of(folders / "original")
    config["encoder"]["variant"] = "nemo"
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    (tmp_path / "other" / "model.safetensors").write_bytes((folders / "original" / "model.safetensors").read_bytes())
    x = features(2, 200, channels=80)
    with torch.no_grad():
        (right, _), (wrong, _) = (plain.load(f)(x, LENGTHS) for f in (folders / "original", tmp_path / "other"))
    assert (right - wrong).abs().max() > 0.1


WITHOUT_NEMO = """
import sys
import torch
known = set(sys.modules)
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"nemo", "lightning", "hydra", "omegaconf", "onnxruntime", "sentencepiece"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from nemo_squeezeformer import plain
model = plain.load(sys.argv[1])
new = {name.partition(".")[0] for name in set(sys.modules) - known} - set(sys.stdlib_module_names)
assert new <= {"nemo_squeezeformer", "safetensors", "packaging", "numpy", "torch"}, new
with torch.no_grad():
    given = torch.load(sys.argv[2])
    log_probs, lengths = model(*given)
torch.save([log_probs, lengths, model.texts(log_probs, lengths)], sys.argv[2])
"""


def test_outputs_are_the_same_in_a_process_without_nemo(models, folders, tmp_path):
    file = tmp_path / "batch.pt"
    torch.save([features(2, 200, channels=80), LENGTHS], file)
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", WITHOUT_NEMO, str(folders / "word pieces"), str(file)]
    process = subprocess.run(command, env=threads, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    log_probs, lengths, texts = torch.load(file)
    _, expected_lengths, expected = outputs(models["word pieces"])
    assert torch.equal(log_probs, expected) and torch.equal(lengths, expected_lengths)
    assert texts == plain.load(folders / "word pieces").texts(expected, lengths)


def test_a_nemo_encoder_can_load_the_weights_of_a_folder(models, folders):
    fresh = asr_model("ctc")
    for parameter in fresh.encoder.parameters():
        torch.nn.init.normal_(parameter)
    fresh.encoder.load_state_dict(plain.load(folders / "characters").encoder.state_dict())
    assert torch.equal(outputs(fresh)[0], outputs(models["characters"])[0])


def test_the_class_name_of_nemo_2_keeps_its_default(tmp_path):
    name = {"_target_": "nemo.collections.asr.modules.SqueezeformerEncoder", "time_reduce_idx": None}
    model = asr_model("ctc", encoder=name)  # NeMo's own class, if this NeMo has it
    with open_dict(model.encoder._cfg):
        del model.encoder._cfg["time_reduce_idx"]
    plain.save(model, tmp_path / "plain")
    assert config_of(tmp_path / "plain")["encoder"]["time_reduce_idx"] is None
    with torch.no_grad():
        log_probs, _ = plain.load(tmp_path / "plain")(features(2, 200, channels=80), LENGTHS)
    torch.testing.assert_close(log_probs[0], outputs(model)[2][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_keep_their_dtype(tmp_path, dtype):
    encoder = small_encoder(time_reduce_idx=1).to(dtype)
    plain.save(encoder, tmp_path / "plain", settings=SMALL | {"time_reduce_idx": 1})
    loaded = plain.load(tmp_path / "plain")
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}
    x = features(2, 200).to(dtype)
    with torch.no_grad():
        assert torch.equal(loaded(x, LENGTHS)[0], encoder(x, LENGTHS)[0])


def test_tied_weights_and_strided_weights_are_restored(tmp_path):
    encoder = small_encoder(untie_biases=False)
    weight = encoder.layers[0].self_attn.linear_q.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    plain.save(encoder, tmp_path / "plain", settings=SMALL | {"time_reduce_idx": None, "untie_biases": False})
    loaded = plain.load(tmp_path / "plain")
    assert loaded.layers[0].self_attn.pos_bias_u is loaded.layers[3].self_attn.pos_bias_u
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_the_config_contains_the_choice_of_auto_and_the_context_size_of_evaluation(tmp_path):
    settings = SMALL | {"streaming": True, "att_context_size": [[16, 7], [16, 3]], "time_reduce_idx": "auto"}
    encoder = small_encoder(**settings)
    encoder.set_default_att_context_size([16, 3])
    plain.save(encoder.train(), tmp_path / "plain", settings)
    assert encoder.training
    config, loaded = config_of(tmp_path / "plain"), plain.load(tmp_path / "plain")
    assert config["encoder"]["time_reduce_idx"] == 1 and config["default_att_context_size"] == [16, 3]
    x = features(2, 200)
    with torch.no_grad():
        expected, _ = encoder.eval()(x, LENGTHS)
        assert torch.equal(loaded(x, LENGTHS)[0], expected)
        loaded.set_default_att_context_size([16, 7])
        assert not torch.equal(loaded(x, LENGTHS)[0], expected)


def test_a_model_that_supports_adapters_but_has_no_adapters_is_saved(models, tmp_path):
    model = asr_model("ctc")
    model.replace_adapter_compatible_modules()
    plain.save(model, tmp_path / "plain")
    with torch.no_grad():
        found, _ = plain.load(tmp_path / "plain")(features(2, 200, channels=80), LENGTHS)
    assert torch.equal(found, outputs(model)[2])


def test_imported_original_weights_are_saved_and_loaded(tokenizer, tmp_path, capsys):
    pytest.importorskip("h5py", reason="h5py, which writes the authors' files, is not installed")
    weights, pieces = tmp_path / "weights.h5", tokenizer / "tokenizer.model"
    arrays = original_weights.write(weights, d_model=16, n_layers=3, vocabulary_size=23)
    archive, folder = str(tmp_path / "model.nemo"), tmp_path / "plain"
    assert main(["import", str(weights), "--tokenizer", str(pieces), "--output", archive]) == 0
    assert main(["export", archive, "--format", "safetensors", "--output", str(folder)]) == 0
    model, loaded, config = (
        ASRModel.restore_from(archive, map_location="cpu").eval(),
        plain.load(folder),
        config_of(folder),
    )
    assert config["encoder"]["variant"] == "original" and config["features"]["class"] == "OriginalMelSpectrogram"
    samples, lengths = torch.randn(2, 20000), torch.tensor([20000, 13000])
    with torch.no_grad():
        expected, expected_frames, _ = model.eval()(input_signal=samples, input_signal_length=lengths)
        log_probs, frames = loaded(*OriginalMelSpectrogram(**config["features"]["settings"])(samples, lengths))
    assert torch.equal(log_probs, expected) and torch.equal(frames, expected_frames)
    (bias,) = (value for name, value in arrays.items() if "logits" in name and "bias" in name)
    assert loaded.decoder.bias[-1] == bias[0]  # the authors' blank is token 0, NeMo's blank is the last token
