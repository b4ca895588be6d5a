"""A model from a checkpoint of its training gives the same text as the model itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.asr_models import asr_model, write_tokenizer

CPU = torch.device("cpu")


def write_checkpoint(model: Any, path: Path) -> Path:
    trainer = lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Any:
    """Return a transducer with word pieces, and its checkpoint and tokenizer."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = write_tokenizer(folder / "tokenizer")
    model = asr_model("transducer", "bpe", tokenizer=tokenizer)
    return model, write_checkpoint(model, folder / "run-last.ckpt"), tokenizer


def test_a_checkpoint_gives_the_weights_and_the_vocabulary_of_the_model(run, noises):
    model, path, _ = run
    loaded = load_model(str(path), CPU)
    weights = model.state_dict()
    assert not loaded.training and loaded.tokenizer.vocab == model.tokenizer.vocab
    assert loaded.state_dict().keys() == weights.keys()
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)
    texts = [[best.text for best in each.transcribe(noises, verbose=False)] for each in (model, loaded)]
    assert texts[0] == texts[1]


def test_info_and_export_take_a_checkpoint(tmp_path, capsys):
    path = write_checkpoint(asr_model(), tmp_path / "ctc.ckpt")
    assert main(["info", str(path)]) == 0
    assert "EncDecCTCModel" in capsys.readouterr().out
    assert main(["export", str(path), "--offline", "--output", str(tmp_path / "ctc.onnx")]) == 0
    assert (tmp_path / "ctc.onnx").is_file()


def test_a_missing_tokenizer_is_named_with_the_nemo_file_that_contains_it(run, tmp_path):
    _, path, tokenizer = run
    moved = shutil.move(tokenizer, tmp_path / "elsewhere")
    (path.parent / "run.nemo").touch()
    try:
        with pytest.raises(UserError, match=r"tokenizer .*tokenizer.model, and there is no such file; .*run\.nemo"):
            load_model(str(path), CPU)
    finally:
        shutil.move(moved, tokenizer)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"state_dict": {}, "object": shutil.rmtree}, "objects that can run code"),
        ({"state_dict": {"weight": torch.zeros(1)}}, "does not have the configuration"),
        (b"text", "is damaged|no weights"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_of_a_model_is_refused(content, message, tmp_path):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_model(str(path), CPU)
