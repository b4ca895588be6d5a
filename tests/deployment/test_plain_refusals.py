"""Tests that a folder with safetensors is written whole or not at all, and that error messages name the mistake."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from nemo.collections.asr.modules import ConformerEncoder
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from safetensors.torch import load_file, save_file

from nemo_squeezeformer import plain
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from tests.samples.asr_models import LETTERS, asr_model
from tests.samples.encoders import SMALL, features, small_encoder


@pytest.fixture(scope="module")
def models(tokenizer):
    return {
        "characters": asr_model("ctc"),
        "word pieces": asr_model("ctc", "bpe", tokenizer=tokenizer),
        "hybrid": asr_model("hybrid"),
    }


def test_a_model_that_its_settings_do_not_describe_is_refused(tmp_path):
    def complaint(model, **given):
        with pytest.raises(UserError) as error:
            plain.save(model, tmp_path / "plain", **given)
        assert not list(tmp_path.iterdir())
        return str(error.value)

    encoder = small_encoder(time_reduce_idx=1)
    right = SMALL | {"time_reduce_idx": 1}
    assert "settings of this SqueezeformerEncoder are missing" in complaint(encoder)
    assert "off by" in complaint(encoder, settings=right | {"conv_context_size": "causal"})
    assert "time_reduce_layer" in complaint(encoder, settings=SMALL | {"time_reduce_idx": None})
    assert "unknown names: d_modle" in complaint(encoder, settings=right | {"d_modle": 16})
    assert "conv_kernel_size=8" in complaint(encoder, settings=right | {"conv_kernel_size": 8})
    assert "restore the model again" in complaint(encoder.optimize_for_inference(), settings=right)

    model = asr_model("ctc")
    model.decoder.temperature = 2.0
    assert "off by" in complaint(model)
    model.decoder.temperature = 1.0
    model.replace_adapter_compatible_modules()
    model.add_adapter("houlsby", LinearAdapterConfig(in_features=16, dim=4))
    assert "does not support adapters" in complaint(model)
    model.encoder = ConformerEncoder(feat_in=80, n_layers=1, d_model=16)
    assert "this EncDecCTCModel is a ConformerEncoder, not a SqueezeformerEncoder" in complaint(model)


def test_the_message_names_the_mistake_in_a_folder(models, tmp_path):
    good, broken = tmp_path / "good", tmp_path / "broken"
    plain.save(models["characters"], good)

    def complaint(config=None, weights=None):
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(good, broken)
        for change, read, write in (
            (config, config_of, lambda it, folder: (folder / "config.json").write_text(json.dumps(it))),
            (weights, weights_of, lambda it, folder: save_file(it, folder / "model.safetensors")),
        ):
            if change:
                changed = read(broken)
                change(changed)
                write(changed, broken)
        with pytest.raises(UserError) as error:
            plain.load(broken)
        return str(error.value)

    def config_of(folder):
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def weights_of(folder):
        return {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}

    assert "decoder.bias" in complaint(weights=lambda it: it.pop("decoder.bias"))
    assert "surplus" in complaint(weights=lambda it: it.update(surplus=torch.zeros(1)))
    assert "size mismatch for decoder.bias" in complaint(weights=lambda it: it.update({"decoder.bias": torch.ones(3)}))
    whole = torch.ones(len(LETTERS) + 1, dtype=torch.int32)
    assert "decoder.bias has dtype torch.int32" in complaint(weights=lambda it: it.update({"decoder.bias": whole}))
    assert "version 2, not 1" in complaint(lambda it: it.update(version=2))
    assert "unknown names: beams" in complaint(lambda it: it.update(beams=4))
    assert "missing names: features" in complaint(lambda it: it.pop("features"))
    assert "encoder: unknown names: n_layer" in complaint(lambda it: it["encoder"].update(n_layer=4))
    assert "'d_model'" in complaint(lambda it: it["encoder"].pop("d_model"))
    assert "self_attention_model='abs'" in complaint(lambda it: it["encoder"].update(self_attention_model="abs"))
    assert "ctc: missing names: units" in complaint(lambda it: it["ctc"].pop("units"))
    assert "blank is 0" in complaint(lambda it: it["ctc"].update(blank=0))
    (broken / "config.json").unlink()
    with pytest.raises(UserError, match="config.json"):
        plain.load(broken)


def test_a_folder_is_replaced_only_with_force_and_without_other_files(models, tmp_path, monkeypatch):
    folder = tmp_path / "plain"
    written = plain.save(models["word pieces"], folder)
    assert [path.name for path in written] == ["config.json", "model.safetensors", "tokenizer.model"]
    with pytest.raises(UserError, match="exists"):
        plain.save(models["characters"], folder)
    assert len(list(folder.iterdir())) == 3
    with monkeypatch.context() as context, pytest.raises(OSError, match="full"):
        context.setattr("nemo_squeezeformer.deployment.weights.saving.save_model", full)
        plain.save(models["characters"], folder, force=True)
    assert len(list(folder.iterdir())) == 3 and list(tmp_path.iterdir()) == [folder]
    plain.save(models["characters"], folder, force=True)
    assert len(list(folder.iterdir())) == 2 and list(tmp_path.iterdir()) == [folder]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="notes.txt"):
        plain.save(models["characters"], folder, force=True)
    with pytest.raises(UserError, match="no folder"):
        plain.save(models["characters"], tmp_path / "none" / "plain")


def full(*args, **kwargs):
    raise OSError("the disk is full")


def test_the_command_writes_the_folder_and_names_the_missing_parts(models, tmp_path, capsys):
    archive, folder = tmp_path / "model.nemo", tmp_path / "plain"
    models["hybrid"].save_to(str(archive))
    given = ["export", str(archive), "--format", "safetensors", "--output", str(folder)]
    assert main([*given, "--int8"]) == 2 and "--int8 is an option for ONNX" in capsys.readouterr().err
    assert main(given) == 0
    out, err = capsys.readouterr()
    assert out.split() == [str(folder / name) for name in ("config.json", "model.safetensors")]
    assert "the transducer needs NeMo" in err
    x, lengths = features(2, 200, channels=80), torch.tensor([200, 133])
    with torch.no_grad():
        expected, _ = models["hybrid"].encoder(audio_signal=x, length=lengths)
        log_probs, _ = plain.load(folder)(x, lengths)
        assert torch.equal(log_probs, models["hybrid"].ctc_decoder(encoder_output=expected))
    assert main(given) == 2 and "exists" in capsys.readouterr().err
