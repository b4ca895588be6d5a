"""Tests that settings in files start no code: resolvers in saved models, and classes in YAML files."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator

import pytest
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.training.recipes import build, compose
from tests.integration.test_unsafe_files import with_config
from tests.samples.damaged_models import CONFIG, read, write
from tests.samples.model_types.model_type import SMALL, spoken
from tests.samples.paths import ROOT


@pytest.fixture(autouse=True)
def nemos_state() -> Iterator[None]:
    """Reset NeMo's state after the test. After an error NeMo would build later models of this process without data."""
    yield
    ASRModel._set_model_restore_state(is_being_restored=False)


@contextlib.contextmanager
def only_these_files_are_opened(*allowed: object) -> Iterator[None]:
    """Fail if Python opens a file whose path does not begin with one of the ``allowed`` paths. Modules are excepted."""
    opened = []
    OPENED.append(opened)
    try:
        yield
    finally:
        OPENED.remove(opened)
    others = [
        path for path in opened if not str(path).startswith((*map(str, allowed), sys.prefix, "/proc/", "/etc/os-"))
    ]
    assert not others


OPENED: list[list[object]] = []  # an audit hook cannot be removed, so that it only acts while a list is here
sys.addaudithook(lambda event, given: [them.append(given[0]) for them in OPENED] if event == "open" else None)

RESOLVERS = ["peak_lr:", "on_cuda:", "unless:null,0.5", "short_warm_up:0.5"]


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_resolver_of_the_recipes_in_a_saved_model_is_refused(resolver, ctc_file, noises, tmp_path, capsys):
    encoder = {**ASRModel.restore_from(str(ctc_file), return_config=True).encoder}
    encoder["dropout"] = f"${{squeezeformer.{resolver}}}"
    path = with_config(ctc_file, tmp_path, encoder=encoder, train_ds={"manifest_filepath": "/dev/zero"})
    with pytest.raises(Exception, match="is in the configuration of a saved model"):
        ASRModel.restore_from(path, map_location="cpu")
    for arguments in (["transcribe", path, noises[0]], ["info", path]):
        assert main(arguments) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "nemo-squeezeformer: error:" in line]
        assert path in line and "is in the configuration of a saved model" in line


def test_a_resolver_whose_name_is_another_setting_is_refused(ctc_file, noises, tmp_path, capsys):
    path = with_config(ctc_file, tmp_path, first="env", second="${oc.${first}:SECRET}")
    assert main(["transcribe", path, noises[0]]) == 2
    assert "is in the configuration of a saved model" in capsys.readouterr().err


def test_a_refused_file_does_not_change_the_resolvers_of_later_recipes(ctc_file, tmp_path):
    encoder = {**ASRModel.restore_from(str(ctc_file), return_config=True).encoder}
    path = with_config(ctc_file, tmp_path, encoder={**encoder, "dropout": "${squeezeformer.peak_lr:}"})
    with pytest.raises(Exception, match="is in the configuration of a saved model"):
        ASRModel.restore_from(path, map_location="cpu")
    data = ["model.train_ds.manifest_filepath=train.json", "model.train_ds.batch_size=4"]
    cfg = compose("squeezeformer_ctc_char", ["trainer.accelerator=cpu", "trainer.devices=1", *data])
    assert OmegaConf.select(cfg, "model.optim.lr") > 0


def test_after_a_refused_file_a_recipe_is_built_with_its_data(ctc_file, tmp_path):
    encoder = {**ASRModel.restore_from(str(ctc_file), return_config=True).encoder}
    path = with_config(ctc_file, tmp_path, encoder={**encoder, "dropout": "${squeezeformer.peak_lr:}"})
    with pytest.raises(Exception, match="is in the configuration of a saved model"):
        ASRModel.restore_from(path, map_location="cpu")
    model = build(compose("squeezeformer_ctc_char", [*SMALL, *spoken(tmp_path), "trainer.max_epochs=1"]))
    assert len(model.train_dataloader()) == 2


def test_the_configuration_alone_of_a_saved_model_reads_no_file(ctc_file, tmp_path):
    """With ``return_config`` NeMo builds no model, so the resolvers compute a value. They must not open a file."""
    data = ["model.train_ds.manifest_filepath=/dev/zero", "model.train_ds.batch_size=4"]
    cfg = compose("squeezeformer_ctc_char", ["trainer.accelerator=cpu", "trainer.devices=1", *data])
    tarred = cfg.copy()
    OmegaConf.set_struct(tarred, False)
    tarred.model.train_ds.update({"is_tarred": True, "bucketing_batch_size": 4, "batch_size": None})
    files = read(ctc_file)
    for number, changed in enumerate((cfg, tarred)):
        path = tmp_path / f"{number}.nemo"
        write(path, files | {CONFIG: OmegaConf.to_yaml(changed).encode()})
        with only_these_files_are_opened(path, tempfile.gettempdir(), ROOT):
            config = ASRModel.restore_from(str(path), return_config=True)
            assert OmegaConf.to_container(config, resolve=True)["optim"]["lr"] > 0


def test_info_does_not_import_a_class_that_nemo_does_not_allow(tmp_path, monkeypatch, capsys):
    marker = tmp_path / "marker"
    (tmp_path / "evil_model.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Model: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cfg = compose("squeezeformer_ctc_char", ["model.labels=[a,b]"])
    for key in ("model_target", "model.target"):
        changed = cfg.copy()
        OmegaConf.set_struct(changed, False)
        changed.pop("model_target", None)
        OmegaConf.update(changed, key, "evil_model.Model")
        OmegaConf.save(changed, tmp_path / "recipe.yaml")
        assert main(["info", str(tmp_path / "recipe.yaml")]) == 2
        assert "evil_model.Model is not a class of NeMo or of this package" in capsys.readouterr().err
    assert not marker.exists()
