"""``.nemo`` files that NeMo 2.7.3 has written restore here, and give what they gave there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel

import nemo_squeezeformer

PYTHON = os.environ.get("NEMO_2_7_3_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="needs an interpreter with NeMo 2.7.3 in NEMO_2_7_3_PYTHON: make test-nemo-2.7.3"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files that NeMo 2.7.3 writes now."""
    folder = tmp_path_factory.mktemp("nemo-2.7.3")
    writer = Path(__file__).with_name("write_old_files.py")
    process = subprocess.run([str(PYTHON), str(writer), str(folder)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return folder


def largest_difference(model: ASRModel, folder: Path, name: str) -> float:
    """Of the log-probabilities of all valid frames."""
    batch = torch.load(folder / "audio.pt")
    expected = torch.load(folder / f"{name}.pt")
    with torch.no_grad():
        log_probs, lengths, _ = model.eval()(input_signal=batch["audio"], input_signal_length=batch["lengths"])
    assert lengths.tolist() == expected["lengths"].tolist()
    return max(
        (log_probs[i, :length] - expected["log_probs"][i, :length]).abs().max().item()
        for i, length in enumerate(lengths.tolist())
    )


@pytest.mark.parametrize("name", ["char", "bpe", "adapted"])
def test_an_old_file_restores_equals_and_does_so_again_after_saving(folder, tmp_path, name):
    model = ASRModel.restore_from(str(folder / f"{name}.nemo"), map_location="cpu")
    assert isinstance(model.encoder, nemo_squeezeformer.SqueezeformerEncoder)
    assert (name == "adapted") == isinstance(model.encoder, nemo_squeezeformer.SqueezeformerEncoderAdapter)
    difference = largest_difference(model, folder, name)
    print(f"{name}: largest difference {difference:.1e}")
    assert difference <= 1e-5

    model.save_to(str(tmp_path / "again.nemo"))
    again = ASRModel.restore_from(str(tmp_path / "again.nemo"), map_location="cpu")
    assert largest_difference(again, folder, name) <= 1e-5


def test_an_adapter_that_is_switched_off_would_be_seen(folder):
    model = ASRModel.restore_from(str(folder / "adapted.nemo"), map_location="cpu")
    for name in ("linear", "attention"):
        model.set_enabled_adapters(enabled=True)
        model.set_enabled_adapters(name, enabled=False)
        assert largest_difference(model, folder, "adapted") > 1e-3, name


def test_old_adapters_that_were_saved_alone_join_their_model(folder, tmp_path, monkeypatch):
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


def test_without_us_nemo_says_what_our_docs_say(folder):
    program = (
        "import sys; sys.modules['nemo_squeezeformer'] = None\n"
        "from nemo.collections.asr.models import ASRModel\n"
        f"ASRModel.restore_from({str(folder / 'char.nemo')!r}, map_location='cpu')"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "TypeError: Can't instantiate abstract class ASRModel" in process.stderr
    docs = Path(__file__).parents[2] / "docs" / "coming-from-nemo.md"
    assert "TypeError: Can't instantiate abstract class ASRModel" in docs.read_text(encoding="utf-8")
