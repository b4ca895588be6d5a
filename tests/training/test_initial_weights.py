"""Tests of initial weights from files: matching weights are used, and other weights are reported before NeMo fails."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.initial_weights import check, load
from tests.samples.asr_models import LETTERS, asr_model


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    """A saved CTC model whose weights differ from the weights of all other models."""
    path = tmp_path_factory.mktemp("model") / "start.nemo"
    model = asr_model()
    for parameter in model.parameters():
        parameter.data.add_(1.0)
    model.save_to(str(path))
    return str(path)


def recipe(model, **start) -> OmegaConf:
    return OmegaConf.create({"model": OmegaConf.to_container(model.cfg), **start})


def start(model, **start) -> None:
    """Check and load the weights."""
    load(recipe(model, **start), model)


def wider_decoder():
    decoder = {"num_classes": len(LETTERS) + 2, "vocabulary": [*LETTERS, "y", "z"]}
    return asr_model(labels=decoder["vocabulary"], decoder=decoder)


def test_all_weights_of_a_file_of_the_same_size_are_used(file, caplog):
    model = asr_model()
    before = model.encoder.pre_ln.weight.clone()
    start(model, init_from_nemo_model=file)
    torch.testing.assert_close(model.encoder.pre_ln.weight, before + 1.0)
    assert "start untrained" not in caplog.text


def test_another_size_is_reported_with_both_numbers_and_the_remedy(file):
    model = asr_model(encoder={"d_model": 32})
    with pytest.raises(UserError) as error:
        check(recipe(model, init_from_nemo_model=file), model)
    message = str(error.value)
    assert (
        file in message and "d_model is 16 in the file and 32 in the model" in message and "choose the size" in message
    )
    assert (
        "encoder.layers.0.conv.batch_norm.bias is [32] in the file and [64] in the model" in message
        and "\n" not in message
    )
    with pytest.raises(RuntimeError, match="size mismatch"):  # NeMo's error without the check
        model.maybe_init_from_pretrained_checkpoint(recipe(model, init_from_nemo_model=file))


def test_the_remedy_in_the_message_excludes_another_vocabulary(file, caplog):
    model = wider_decoder()
    with pytest.raises(UserError, match=r"decoder\.decoder_layers\.0\.\w+ is .* exclude: \[decoder\.\]"):
        check(recipe(model, init_from_nemo_model=file), model)
    before = model.decoder.decoder_layers[0].weight.clone(), model.encoder.pre_ln.weight.clone()
    start(model, init_from_nemo_model={"it": {"path": file, "exclude": ["decoder."]}})
    torch.testing.assert_close(model.decoder.decoder_layers[0].weight, before[0])
    torch.testing.assert_close(model.encoder.pre_ln.weight, before[1] + 1.0)
    assert "start untrained: decoder" in caplog.text


def test_more_layers_than_in_the_file_are_a_warning(file, caplog):
    model = asr_model(encoder={"n_layers": 5, "time_recovery_idx": 3})
    start(model, init_from_nemo_model=file)
    assert "start untrained: encoder.layers" in caplog.text


def test_a_transducer_starts_from_the_encoder_of_a_ctc_model(file, caplog):
    model = asr_model("transducer")
    before = model.encoder.pre_ln.weight.clone()
    start(model, init_from_nemo_model={"it": {"path": file, "include": ["encoder."]}})
    torch.testing.assert_close(model.encoder.pre_ln.weight, before + 1.0)
    assert "decoder, joint" in caplog.text


def test_a_file_without_matching_weights_is_refused(file):
    model = asr_model()
    with pytest.raises(UserError, match=r"no weight in this file .*include: \['encodr'\]"):
        check(recipe(model, init_from_nemo_model={"it": {"path": file, "include": ["encodr"]}}), model)


def test_a_lightning_checkpoint_is_checked(tmp_path):
    model, path = asr_model(), tmp_path / "last.ckpt"
    torch.save({"state_dict": asr_model(encoder={"d_model": 32}).state_dict()}, path)
    with pytest.raises(UserError, match=r"init_from_ptl_ckpt=.*last.ckpt does not fit"):
        check(recipe(model, init_from_ptl_ckpt=str(path)), model)


def test_the_configuration_in_a_lightning_checkpoint_is_compared(tmp_path, monkeypatch, caplog):
    """PyTorch loads a file with a configuration only if the types of the configuration are allowed."""
    model, path = asr_model(), tmp_path / "last.ckpt"
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    config = OmegaConf.create({"preprocessor": {**model.cfg.preprocessor, "window_stride": 0.02}})
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": {"cfg": config}}, path)
    check(recipe(model, init_from_ptl_ckpt=str(path)), model)
    assert "window_stride is 0.02 in the file and 0.01 in the model" in caplog.text


def test_a_missing_file_and_a_file_that_is_not_a_model_have_different_errors(tmp_path):
    model, other = asr_model(), tmp_path / "other.nemo"
    other.write_text("no archive")
    for path, message in ((tmp_path / "none.nemo", "does not exist"), (other, "does not look like a model")):
        with pytest.raises(UserError, match=message):
            check(recipe(model, init_from_nemo_model=str(path)), model)


@pytest.mark.parametrize("given", [["a.nemo", "b.nemo"], {"path": "a.nemo"}, {"base": {"include": ["encoder."]}}, 5])
def test_another_form_of_the_setting_is_refused_with_the_right_form(given):
    model = asr_model()
    with pytest.raises(UserError, match=r"is not a path; give a path, .*'\+init_from_nemo_model=\{base: \{path: FILE"):
        check(recipe(model, init_from_nemo_model=given), model)


def test_a_home_folder_and_a_part_of_a_name_without_brackets_are_accepted(file, caplog, monkeypatch):
    folder, _, name = file.rpartition("/")
    monkeypatch.setenv("HOME", folder)
    model = asr_model()
    check(recipe(model, init_from_nemo_model={"it": {"path": f"~/{name}", "include": "decoder."}}), model)
    assert "these modules start untrained: encoder.layers" in caplog.text


def test_rotary_positions_start_from_a_file_with_relative_positions_and_name_what_is_left_out(file, caplog):
    model = asr_model(encoder={"self_attention_model": "rope"})
    before = model.encoder.layers[0].self_attn.linear_q.weight.clone()
    start(model, init_from_nemo_model=file)
    torch.testing.assert_close(model.encoder.layers[0].self_attn.linear_q.weight, before + 1.0)
    (warning,) = (record.message for record in caplog.records if "positions" in record.message)
    assert (
        "12 weights of attention have no place and are left out (linear_pos.weight, pos_bias_u, pos_bias_v)" in warning
    )


def test_relative_positions_start_untrained_from_a_file_with_rotary_positions(tmp_path, caplog):
    asr_model(encoder={"self_attention_model": "rope"}).save_to(str(tmp_path / "rotary.nemo"))
    start(asr_model(), init_from_nemo_model=str(tmp_path / "rotary.nemo"))
    assert "12 weights of attention are new and untrained (linear_pos.weight, pos_bias_u, pos_bias_v)" in caplog.text


def test_another_order_of_the_labels_is_a_warning(file, caplog):
    labels = [*LETTERS[:2], *reversed(LETTERS[2:])]
    model = asr_model(labels=labels, decoder={"vocabulary": labels})
    start(model, init_from_nemo_model=file)
    assert "outputs of model.decoder have another meaning than in the file: output 2 is" in caplog.text
    caplog.clear()
    start(model, init_from_nemo_model={"it": {"path": file, "exclude": ["decoder."]}})
    assert "another meaning" not in caplog.text


def test_weights_without_deep_norm_in_a_model_with_it_are_a_warning(file, caplog):
    start(asr_model(encoder={"deep_norm": True}), init_from_nemo_model=file)
    assert "has model.encoder.deep_norm=False, but the model has True" in caplog.text
    assert "to keep the function of the file, set model.encoder.deep_norm=False" in caplog.text


def test_another_place_of_the_temporal_unet_is_a_warning(file, caplog):
    start(asr_model(encoder={"time_reduce_idx": 0}), init_from_nemo_model=file)
    assert "has model.encoder.time_reduce_idx=1, but the model has 0" in caplog.text


@pytest.mark.parametrize("setting", [{"time_reduce_idx": "auto"}, {"time_recovery_idx": None}], ids=str)
def test_a_place_of_the_temporal_unet_that_the_encoder_chooses_is_not_compared(setting, file, caplog):
    model = asr_model()
    with open_dict(model.cfg):
        model.cfg.encoder.update(setting)
    start(model, init_from_nemo_model=file)
    assert "another function" not in caplog.text


def test_other_features_are_a_warning(file, caplog):
    start(asr_model(preprocessor={"window_stride": 0.02, "highfreq": 4000}), init_from_nemo_model=file)
    assert "window_stride is 0.01 in the file and 0.02 in the model" in caplog.text
    assert "set model.preprocessor.window_stride=0.01 model.preprocessor.highfreq=null" in caplog.text
    caplog.clear()
    original = {"_target_": "nemo_squeezeformer.OriginalMelSpectrogramPreprocessor", "sample_rate": 16000}
    model = asr_model()
    model.cfg.preprocessor = original
    start(model, init_from_nemo_model=file)
    assert "the features of AudioToMelSpectrogramPreprocessor, but model.preprocessor is Original" in caplog.text


def test_without_initial_weights_there_is_no_warning(caplog):
    model = asr_model()
    check(recipe(model), model)
    check(recipe(model, init_from_nemo_model=None), model)
    assert "untrained" not in caplog.text
