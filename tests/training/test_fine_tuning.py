"""`train --from MODEL`: the settings of the file, its vocabulary or a new vocabulary, and a frozen encoder at first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands import train as command
from nemo_squeezeformer.commands.training import start_from
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.fine_tuning import recipe as fine_tuning
from tests.samples.asr_models import LETTERS, asr_model, write_tokenizer
from tests.samples.speech import write_manifest

RUN = ["model.train_ds.batch_size=2", "model.train_ds.num_workers=0", "model.validation_ds.num_workers=0"]
RUN += ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.enable_progress_bar=false", "trainer.max_epochs=1"]
NEW = "model.encoder.gradient_checkpointing=true"  # a setting that the file does not have
RUN += ["exp_manager.create_tensorboard_logger=false"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    train_set, dev_set = write_manifest(folder, 4), write_manifest(folder, 2, name="dev")
    named = [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]
    return [*RUN, *named]


@pytest.fixture(scope="module")
def bpe_file(tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bpe") / "bpe.nemo"
    model = asr_model("hybrid", "bpe", tokenizer=tokenizer)
    model.cfg.optim = {"name": "adamw", "lr": 0.002, "sched": {"name": "NoamHoldAnnealing", "warmup_steps": 10}}
    model.save_to(str(path))
    return path


def composed(model: Path | str, folder: Path, *overrides: str) -> tuple[Any, str]:
    folder.mkdir(exist_ok=True)
    return start_from.recipe_of(str(model), overrides, folder)[:2]


def trained(model: Path | str, folder: Path, *overrides: str) -> Any:
    torch.manual_seed(0)
    cfg, _ = composed(model, folder / "recipe", *overrides, f"exp_manager.exp_dir={folder}/exp")
    return command.train(cfg)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    from nemo.collections.asr.models import ASRModel

    return ASRModel.restore_from(str(path), map_location="cpu").state_dict()


def test_the_recipe_has_the_settings_of_the_file_and_a_tenth_of_its_rate(bpe_file, data, tmp_path):
    cfg, words = composed(bpe_file, tmp_path, *data, "model.encoder.dropout=0.3", "optim=adamw", NEW)
    assert cfg.model_target.endswith("EncDecHybridRNNTCTCBPEModel")
    assert (cfg.model.encoder.d_model, cfg.model.encoder.dropout, cfg.model.encoder.time_reduce_idx) == (16, 0.3, 1)
    assert cfg.model.encoder.gradient_checkpointing is True
    assert cfg.model.preprocessor.normalize == "per_feature" and cfg.model.preprocessor.dither == 0.0
    assert cfg.model.optim.lr == pytest.approx(2e-4) and cfg.trainer.max_epochs == 1
    assert cfg.init_from_nemo_model == str(bpe_file) and not cfg.fine_tuning.frozen_epochs
    assert "4 layers of width 16" in words and "the tokenizer of the file (23 pieces) are kept" in words


@pytest.mark.parametrize(
    "optim, rate",
    [
        ({"name": "adamw", "lr": 1e-3, "sched": {"name": "CosineAnnealing"}}, 1e-4),
        ({"lr": 2.0, "sched": {"name": "NoamAnnealing", "d_model": 256, "warmup_steps": 10_000}}, 1.25e-4),
        ({"lr": 5.0, "sched": {"name": "NoamAnnealing"}}, 1e-4),  # the file does not say enough
        ({"lr": 1e-4}, 1e-4),  # an imported file
        ({}, 1e-4),
    ],
)
def test_the_rate_is_a_share_of_the_peak_of_the_first_training(optim, rate):
    assert fine_tuning.peak_lr({"optim": optim}, fine_tuning.KEPT_VOCABULARY) == pytest.approx(rate)
    assert fine_tuning.peak_lr({"optim": optim}, fine_tuning.NEW_VOCABULARY) == pytest.approx(5 * rate)


@pytest.mark.parametrize(
    "given, rate", [([], 1e-3), (["schedule.peak_lr=0.0003"], 3e-4), (["model.optim.lr=0.1"], 0.1)]
)
def test_with_a_new_vocabulary_the_rate_is_half_of_the_rate_of_the_file_or_the_given_rate(
    bpe_file, data, tmp_path, given, rate
):
    tokenizer = write_tokenizer(tmp_path / "new", 20)
    cfg, words = composed(bpe_file, tmp_path / "recipe", *data, f"model.tokenizer.dir={tokenizer}", *given)
    assert cfg.model.optim.lr == pytest.approx(rate)
    assert cfg.model.optim_param_groups.decoder.lr == pytest.approx(2 * rate)
    assert words.endswith("2 times the learning rate of the encoder; the encoder is frozen for 0.2 epochs")


class Watch(Callback):
    """Keep the weights of the encoder and of the decoder, and the modes of the encoder, at the start of each batch."""

    def __init__(self) -> None:
        self.encoder: list[torch.Tensor] = []
        self.decoder: list[torch.Tensor] = []
        self.training: list[bool] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.keep(pl_module)
        self.training.append(pl_module.encoder.training)
        self.rates = [group["lr"] for group in trainer.optimizers[0].param_groups]

    def on_train_end(self, trainer, pl_module):
        self.keep(pl_module)

    def keep(self, model) -> None:
        state = [value.flatten().float().clone() for value in model.encoder.state_dict().values()]
        self.encoder.append(torch.cat(state))
        self.decoder.append(torch.cat([each.detach().flatten().clone() for each in model.decoder.parameters()]))


@pytest.fixture
def watch(monkeypatch) -> Watch:
    import lightning.pytorch as lightning

    made, trainer = Watch(), lightning.Trainer
    monkeypatch.setattr(lightning, "Trainer", lambda **config: trainer(**{**config, "callbacks": [made]}))
    return made


def test_all_weights_and_the_vocabulary_are_kept(ctc_file, data, tmp_path, watch):
    model = trained(ctc_file, tmp_path, *data)
    before = weights_of(ctc_file)
    decoder = [value.flatten() for name, value in before.items() if name.startswith("decoder.")]
    torch.testing.assert_close(watch.decoder[0], torch.cat(decoder))
    assert list(model.cfg.labels) == LETTERS and all(watch.training)
    assert not torch.equal(watch.encoder[0], watch.encoder[1])
    assert model.encoder.d_model == 16


def test_with_a_new_vocabulary_the_decoder_learns_first_and_faster(ctc_file, data, tmp_path, watch):
    """The model of the file has characters, and the new model has sub-words. NeMo cannot start it from this file."""
    tokenizer = write_tokenizer(tmp_path / "new", 20)
    given = [*data, f"model.tokenizer.dir={tokenizer}", "trainer.max_epochs=4", "model.optim.sched.warmup_steps=1"]
    given += ["fine_tuning.frozen_epochs=1"]
    model = trained(ctc_file, tmp_path, *given)
    assert type(model).__name__ == "EncDecCTCModelBPE" and model.decoder.num_classes_with_blank == 21
    encoder = torch.cat([v.flatten().float() for n, v in weights_of(ctc_file).items() if n.startswith("encoder.")])
    assert watch.training == [False] * 2 + [True] * 6
    torch.testing.assert_close(watch.encoder[2], encoder, rtol=0, atol=0)
    assert not torch.equal(watch.encoder[3], encoder)
    assert not torch.equal(watch.decoder[0], watch.decoder[1])
    assert watch.rates[1] == pytest.approx(2 * watch.rates[0])

    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    from nemo.collections.asr.models import ASRModel

    again = ASRModel.restore_from(str(saved), map_location="cpu")
    assert again.tokenizer.vocab_size == 20 and "optim_param_groups" not in again.cfg
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_without_freezing_the_encoder_learns_at_once_and_the_rates_are_not_saved(ctc_file, data, tmp_path, watch):
    given = [*data, f"model.tokenizer.dir={write_tokenizer(tmp_path / 'new', 20)}", "trainer.max_steps=1"]
    model = trained(ctc_file, tmp_path, *given, "fine_tuning.frozen_epochs=0")
    assert watch.training == [True] and "optim_param_groups" not in model.cfg


@pytest.mark.parametrize("change", ["tokenizer", pytest.param("characters", marks=pytest.mark.slow)])
def test_a_hybrid_gets_a_new_vocabulary(change, bpe_file, data, tmp_path, watch):
    new = [f"model.tokenizer.dir={write_tokenizer(tmp_path / 'new', 20)}"]
    if change == "characters":
        new = ["model.char_labels.update_labels=true"]  # the characters of the training text
    model = trained(bpe_file, tmp_path, *data, *new, "trainer.max_steps=2")
    size = 20 if change == "tokenizer" else len(model.cfg.labels)
    assert model.joint.num_classes_with_blank == model.ctc_decoder.num_classes_with_blank == size + 1
    assert ("tokenizer" in model.cfg) == (change == "tokenizer")
    assert watch.training == [False, True]  # a quarter of two steps instead of a whole epoch


def test_the_same_tokenizer_is_not_a_new_vocabulary(bpe_file, tokenizer, data, tmp_path):
    cfg, words = composed(bpe_file, tmp_path, *data, f"model.tokenizer.dir={tokenizer}")
    assert "are kept" in words and cfg.init_from_nemo_model == str(bpe_file)
    labels = "[" + ",".join(f"'{letter}'" for letter in LETTERS) + "]"
    assert (
        "so these modules start untrained: decoder, joint, ctc_decoder"
        in composed(bpe_file, tmp_path / "other", *data, f"model.char_labels.labels={labels}")[1]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from", "none.nemo"], "--from none.nemo: there is no such file"),
        (["--from", "last.ckpt"], "give the .nemo file of the run"),
        (["squeezeformer_ctc_char", "--from", "FILE"], "remove squeezeformer_ctc_char"),
        (["squeezeformer_finetune"], "add --from MODEL.nemo, or init_from_nemo_model=MODEL.nemo"),
        (
            ["--from", "FILE", "size=m"],
            "keeps the size, the frame rate and the positions of its file (4 layers of width 16)",
        ),
        (["--from", "FILE", "positions=rope"], "remove positions=rope, or train a new model with positions=rope"),
        (
            ["--from", "FILE", "resume=exact"],
            "--from FILE: Could not override 'resume': the recipe does not have this group; did you mean +resume?",
        ),
        (["--from", "FILE", "model.tokenizer.dir=a", "model.char_labels.update_labels=true"], "are both set"),
        (["--from", "FILE", "model.tokenizer.update_tokenizer=true"], "model.tokenizer.dir is not set"),
        (
            ["--from", "FILE", "model.encoder.d_model=32"],
            "model.encoder.d_model=32: the weights in FILE have encoder.d_model=16; remove model.encoder.d_model=32",
        ),
        (["--from", "FILE", "model.preprocessor.features=40"], "the weights in FILE have preprocessor.features=80"),
        (["--from", "weights.h5"], "--from weights.h5: a file of TensorFlow does not contain the settings"),
        (["--from", "FILE", "model.train_ds.manifest_filepath=???"], "manifest_filepath is not set"),
    ],
)
def test_mistakes_are_one_line(arguments, message, ctc_file, data, capsys):
    given = [str(ctc_file) if each == "FILE" else each for each in arguments]
    assert main(["train", *given[:1], *data, *given[1:]] if given[0] != "--from" else ["train", *data, *given]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1].replace(str(ctc_file), "FILE")


def test_a_recipe_without_a_test_set_is_composed(ctc_file, data, capsys):
    given = ["train", "--from", str(ctc_file), *data, "~model.test_ds", "--print"]
    assert main(given) == 0
    assert "test_ds" not in capsys.readouterr().out


def test_a_model_without_text_is_refused(tmp_path):
    from omegaconf import OmegaConf

    config = OmegaConf.create({"target": "nemo.collections.asr.models.EncDecSpeakerLabelModel", "encoder": {}})
    with pytest.raises(UserError, match="is of class EncDecSpeakerLabelModel; --from trains CTC models"):
        fine_tuning.compose("speaker.nemo", config, tmp_path)


def test_text_in_another_case_than_the_vocabulary_is_refused_before_training(ctc_file, data, tmp_path, capsys):
    manifest = write_manifest(tmp_path, 4)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row | {"text": row["text"].upper()}) + "\n" for row in rows))
    given = [*data, f"model.train_ds.manifest_filepath={manifest}"]
    assert main(["train", "--from", str(ctc_file), *given]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not in model.labels" in error and "write the text in lower case" in error


@pytest.mark.slow
def test_two_processes_keep_the_frozen_encoder_and_end_with_equal_weights(ctc_file, data, tmp_path):
    tokenizer = write_tokenizer(tmp_path / "new", 20)
    given = [*data, f"model.tokenizer.dir={tokenizer}", f"exp_manager.exp_dir={tmp_path}/exp", "trainer.devices=2"]
    given += ["trainer.strategy=ddp", "trainer.max_epochs=4"]
    words = [sys.executable, "-m", "nemo_squeezeformer", "train", "--from", str(ctc_file), *given]
    done = subprocess.run(words, capture_output=True, text=True)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-3000:]
    assert "The encoder is frozen for 1 steps" in shown and "The encoder is trained from step 1 on" in shown
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    before, after = weights_of(ctc_file), weights_of(saved)
    assert not torch.equal(before["encoder.pre_ln.weight"], after["encoder.pre_ln.weight"])


def test_nemos_name_of_the_setting_starts_the_same_run(ctc_file, data, capsys):
    given = ["squeezeformer_finetune", *data, f"init_from_nemo_model={ctc_file}"]
    assert main(["train", "--print", *given]) == 0
    shown = capsys.readouterr()
    assert "d_model: 16" in shown.out and "peak 0.0001" in shown.out
    assert f"fine-tuning {ctc_file}" in shown.err


def test_other_features_are_said_before_a_dry_run(ctc_file, data, capsys):
    assert main(["train", "--from", str(ctc_file), *data, "model.preprocessor.normalize=NA", "--dry-run"]) == 0
    assert "normalize is per_feature in the file and NA in the model" in capsys.readouterr().err


def test_other_features_are_said_before_training(ctc_file, data, tmp_path, caplog):
    trained(ctc_file, tmp_path, *data, "model.preprocessor.normalize=NA", "trainer.max_steps=1")
    assert "normalize is per_feature in the file and NA in the model" in caplog.text
    assert "set model.preprocessor.normalize=per_feature" in caplog.text
