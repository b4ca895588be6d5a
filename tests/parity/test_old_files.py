"""Tests that ``.nemo`` files of NeMo 2.7.3 restore here and give the same outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel

import nemo_squeezeformer
from nemo_squeezeformer.__main__ import main
from tests.parity.outputs import outputs
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest

PYTHON = os.environ.get("NEMO_2_7_3_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="needs an interpreter with NeMo 2.7.3 in NEMO_2_7_3_PYTHON: make test-nemo-2.7.3"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder of files that NeMo 2.7.3 writes for this test run."""
    folder = tmp_path_factory.mktemp("nemo-2.7.3")
    writer = Path(__file__).with_name("write_old_files.py")
    process = subprocess.run([str(PYTHON), str(writer), str(folder)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return folder


def largest_difference(model: ASRModel, folder: Path, name: str) -> float:
    """Return the largest difference of encodings and log-probabilities from the expected values, over valid frames."""
    found, expected = outputs(model, torch.load(folder / "audio.pt")), torch.load(folder / f"{name}.pt")
    assert found.keys() == expected.keys()
    lengths = expected["lengths"].tolist()
    assert found["lengths"].tolist() == lengths
    return max(
        (found[key][i, :length] - expected[key][i, :length]).abs().max().item()
        for key in found.keys() & {"encoded", "joint_log_probs", "ctc_log_probs"}
        for i, length in enumerate(lengths)
    )


def same_text(model: ASRModel, folder: Path, name: str) -> bool:
    """Return True if every decoder gives its expected text, and no decoder expects only empty texts."""
    found, expected = outputs(model, torch.load(folder / "audio.pt")), torch.load(folder / f"{name}.pt")
    decoded = found.keys() & {"text", "ctc_text"}
    assert decoded and all(any(expected[key]) for key in decoded)
    return all(found[key] == expected[key] for key in decoded)


@pytest.mark.parametrize("name", ["char", "bpe", "adapted", "transducer", "hybrid"])
def test_an_old_file_restores_with_the_same_outputs_also_after_saving_again(folder, tmp_path, name):
    model = ASRModel.restore_from(str(folder / f"{name}.nemo"), map_location="cpu")
    assert isinstance(model.encoder, nemo_squeezeformer.SqueezeformerEncoder)
    assert (name == "adapted") == isinstance(model.encoder, nemo_squeezeformer.SqueezeformerEncoderAdapter)
    difference = largest_difference(model, folder, name)
    print(f"{name}: largest difference {difference:.1e}")
    assert difference <= 1e-5 and same_text(model, folder, name)

    model.save_to(str(tmp_path / "again.nemo"))
    again = ASRModel.restore_from(str(tmp_path / "again.nemo"), map_location="cpu")
    assert largest_difference(again, folder, name) <= 1e-5 and same_text(again, folder, name)


@pytest.mark.parametrize("part", ["encoder", "decoder", "joint", "ctc_decoder"])
def test_the_comparison_detects_a_changed_part_of_a_hybrid(folder, part):
    model = ASRModel.restore_from(str(folder / "hybrid.nemo"), map_location="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.get_submodule(part).parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert largest_difference(model, folder, "hybrid") > 1e-3
    assert not same_text(model, folder, "hybrid")


def test_the_comparison_detects_an_adapter_that_is_switched_off(folder):
    model = ASRModel.restore_from(str(folder / "adapted.nemo"), map_location="cpu")
    for name in ("linear", "attention"):
        model.set_enabled_adapters(enabled=True)
        model.set_enabled_adapters(name, enabled=False)
        assert largest_difference(model, folder, "adapted") > 1e-3, name


def test_old_adapters_saved_without_their_model_load_into_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # NeMo keeps the adapters' configuration in the file
    model = ASRModel.restore_from(str(folder / "later.nemo"), map_location="cpu")
    assert largest_difference(model, folder, "later") > 1e-3
    model.replace_adapter_compatible_modules()
    model.load_adapters(str(folder / "later_adapters.pt"), map_location="cpu")
    assert isinstance(model.encoder, nemo_squeezeformer.SqueezeformerEncoderAdapter)
    assert model.get_enabled_adapters() == ["attention", "houlsby"]
    assert largest_difference(model, folder, "later") <= 1e-5

    model.save_to(str(tmp_path / "joined.nemo"))
    again = ASRModel.restore_from(str(tmp_path / "joined.nemo"), map_location="cpu")
    assert largest_difference(again, folder, "later") <= 1e-5


@pytest.mark.parametrize("name", ["char", "bpe", "transducer", "hybrid"])
def test_an_old_file_is_fine_tuned(folder, tmp_path, name):
    manifest = write_manifest(tmp_path, 4)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row | {"text": "a bad cafe"}) + "\n" for row in rows))
    given = [f"model.{split}.manifest_filepath={manifest}" for split in ("train_ds", "validation_ds")]
    given += [f"model.{split}.num_workers=0" for split in ("train_ds", "validation_ds")]
    given += ["model.train_ds.batch_size=2", "trainer.max_epochs=1", "trainer.devices=1", "trainer.accelerator=cpu"]
    given += [f"exp_manager.exp_dir={tmp_path}/exp", "exp_manager.create_tensorboard_logger=false"]
    assert main(["train", "--from", str(folder / f"{name}.nemo"), *given]) == 0
    (saved,) = (tmp_path / "exp").rglob("*.nemo")
    old = ASRModel.restore_from(str(folder / f"{name}.nemo"), map_location="cpu")
    new = ASRModel.restore_from(str(saved), map_location="cpu")
    assert type(new) is type(old) and new.encoder.d_model == old.encoder.d_model
    changed = (new.encoder.pre_ln.weight - old.encoder.pre_ln.weight).abs().max()
    assert 0 < changed < 1e-3  # the weights of the file, after two steps with a small learning rate


def test_without_this_package_nemo_raises_the_errors_that_the_docs_quote(folder):
    program = (
        "import sys; sys.modules['nemo_squeezeformer'] = None\n"
        "from nemo.collections.asr.models import ASRModel, EncDecCTCModelBPE\n"
        f"old = {str(folder / 'bpe.nemo')!r}\n"
        "name = 'stt_en_squeezeformer_ctc_small_ls'\n"
        "for load in (ASRModel.restore_from, EncDecCTCModelBPE.restore_from, ASRModel.from_pretrained):\n"
        "    try:\n"
        "        load(name if load == ASRModel.from_pretrained else old)\n"
        "    except Exception as error:\n"
        "        print('said:', type(error).__name__ + ': ' + str(error).splitlines()[0])\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said = [line.removeprefix("said: ") for line in process.stdout.splitlines() if line.startswith("said: ")]
    page = (ROOT / "docs" / "coming-from-nemo.md").read_text(encoding="utf-8")
    assert len(said) == 3 and said[0].startswith("TypeError: Can't instantiate abstract class ASRModel")
    assert all(error in page for error in said), said
