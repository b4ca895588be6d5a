"""Plain mistakes in the command `train`: they are found before PyTorch and NeMo are imported, with a proposal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import gpus
from nemo_squeezeformer.training import devices
from nemo_squeezeformer.training.mistakes import misspelt
from nemo_squeezeformer.training.recipes import compose, every_recipe
from tests.samples.plain_recipes import plain
from tests.samples.speech import write_manifest

RECIPE = "squeezeformer_ctc_char_small"
MISTAKES = {  # arguments after the recipe, and a part of the message; TRAIN and DEV are paths of manifests
    "a recipe": (["squeezeformer_ctc_char_smal"], "did you mean squeezeformer_ctc_char_small?"),
    "a recipe with an ending": ([f"{RECIPE}.yaml"], f"did you mean {RECIPE}?"),
    "a setting": ([RECIPE, "trainer.max_epoch=1"], "did you mean trainer.max_epochs?"),
    "a section": ([RECIPE, "trainr.max_epochs=1"], "did you mean trainer.max_epochs?"),
    "a setting without its section": ([RECIPE, "batch_size=8"], "did you mean model.train_ds.batch_size?"),
    "a group": ([RECIPE, "sizes=xs"], "did you mean size?"),
    "a choice": ([RECIPE, "size=xxs"], "Available options in 'size': l m ml s sm tiny xs"),
    "an added setting of the trainer": ([RECIPE, "+trainer.max_epoch=1"], "did you mean trainer.max_epochs?"),
    "an added setting of the logs": ([RECIPE, "+exp_manager.exp_dr=x"], "did you mean exp_manager.exp_dir?"),
    "an added setting of the encoder": ([RECIPE, "+model.encoder.n_layer=3"], "did you mean model.encoder.n_layers?"),
    "a strange setting": ([RECIPE, "+trainer.zzz=1"], "Trainer has no setting zzz; remove it"),
    "a manifest": ([RECIPE, "model.train_ds.manifest_filepath=gone.json"], "there is no file gone.json"),
    "no manifest": ([RECIPE, "model.validation_ds.manifest_filepath=null"], "is not set; add"),
    "no tokenizer": (["squeezeformer_ctc_bpe"], "create a tokenizer with: nemo-squeezeformer tokenizer"),
    "a folder without a tokenizer": (
        ["squeezeformer_ctc_bpe", "model.tokenizer.dir=tok"],
        "model.tokenizer.dir=tok has no tokenizer.model; create",
    ),
}
PROGRAM = """
import contextlib, io, json, sys
from nemo_squeezeformer.__main__ import main
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(["train", *arguments])
    loaded = sorted({"torch", "nemo", "lightning"} & set(sys.modules))
    print(json.dumps([status, said.getvalue(), loaded]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, list]:
    """Return the status, the message and the imported packages of each mistake. All run in one process."""
    folder = tmp_path_factory.mktemp("data")
    data = [f"model.train_ds.manifest_filepath={write_manifest(folder)}"]
    data.append(f"model.validation_ds.manifest_filepath={write_manifest(folder, utterances=2, name='dev')}")
    given = [[recipe, *data, *settings] for (recipe, *settings), _ in MISTAKES.values()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(given), capture_output=True, text=True, cwd=folder, check=True
    )
    return dict(zip(MISTAKES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_plain_mistake_is_found_without_pytorch_and_nemo(mistake, answers):
    status, said, loaded = answers[mistake]
    assert status == 2 and MISTAKES[mistake][1] in said and said.count("\n") == 1, said
    assert loaded == []


@pytest.mark.parametrize("recipe", every_recipe())
def test_no_recipe_has_a_setting_that_the_check_refuses(recipe):
    misspelt.check(plain(recipe))


def test_the_names_of_settings_are_the_names_of_the_classes():
    from dataclasses import fields
    from inspect import signature

    from lightning.pytorch import Trainer
    from nemo.utils.exp_manager import CallbackParams, ExpManagerConfig

    from nemo_squeezeformer.core import SqueezeformerEncoder

    read = {section: misspelt.settings_of(*place) for section, place in misspelt.CHECKED.items()}
    assert read["trainer"] == set(signature(Trainer.__init__).parameters) - {"self"}
    assert read["model.encoder"] == set(signature(SqueezeformerEncoder.__init__).parameters) - {"self"}
    assert read["exp_manager"] == {field.name for field in fields(ExpManagerConfig)}
    assert read["exp_manager.checkpoint_callback_params"] == {field.name for field in fields(CallbackParams)}


def test_a_gpu_is_refused_where_pytorch_has_no_gpu():
    import torch

    reason = gpus._before_import()
    if torch.cuda.is_available():
        assert reason == "" and gpus.without_cuda() == ""
        return
    assert gpus.without_cuda() == "PyTorch finds no CUDA device here"
    if torch.version.cuda is None and torch.version.hip is None:
        assert reason == f"the installed PyTorch {torch.__version__} is built without CUDA"
    with pytest.raises(UserError, match="trainer.accelerator=cuda: .*; use trainer.accelerator=cpu"):
        devices.check(compose(RECIPE, ["trainer.accelerator=cuda"]))
