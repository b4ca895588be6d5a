"""Tests that `.nemo` files are refused, without running code, if a target is not in NeMo's list of allowed targets."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import nemo
import pytest
from nemo.collections.asr.models import ASRModel, EncDecCTCModel
from omegaconf import OmegaConf

import nemo_squeezeformer

SHELL = {"args": "touch MARKER", "shell": True}
PAYLOADS = {
    "subprocess.Popen": SHELL,
    "os.system": {"_args_": ["touch MARKER"]},
    "evil.Encoder": {},
    "nemo_squeezeformer_evil.Encoder": {},
    # Targets through imports of this package:
    "nemo_squeezeformer.commands.inputs.os.system": {"_args_": ["touch MARKER"]},
    "nemo_squeezeformer.transcription.live.audio_blocks.np.f2py.subprocess.Popen": SHELL,
    "nemo_squeezeformer.transcription.live.audio_blocks.np.f2py.subprocess.check_call": SHELL,
}
OUR_COMMAND = {"nemo_squeezeformer.__main__.main": {"argv": ["run", "MARKER.py"]}}


def payload(target: str, marker: Path) -> dict[str, Any]:
    """Return a section of a configuration that creates the marker when it is instantiated."""

    def marked(value: Any) -> Any:
        return [marked(one) for one in value] if isinstance(value, list) else str(value).replace("MARKER", str(marker))

    arguments = (PAYLOADS | OUR_COMMAND)[target]
    return {"_target_": target} | {key: value if value is True else marked(value) for key, value in arguments.items()}


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file that must not exist after a test, and modules that create it when they are imported or run."""
    marker = tmp_path / "marker"
    names = ["evil", "nemo_squeezeformer_evil", "marker"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(
            f"import pathlib, torch\npathlib.Path({str(marker)!r}).touch()\nclass Encoder(torch.nn.Identity): pass\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    for name in names:
        sys.modules.pop(name, None)


def with_config(saved: Path, folder: Path, **changes: Any) -> str:
    """Return the path of a copy of the archive with ``changes`` in its model_config.yaml."""
    with tarfile.open(saved) as old, tarfile.open(folder / "changed.nemo", "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            data = content.read() if content else b""
            if member.name.endswith("model_config.yaml"):
                config = OmegaConf.create(data.decode())
                for key, change in changes.items():
                    config[key] = change
                data = OmegaConf.to_yaml(config).encode()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return str(folder / "changed.nemo")


@pytest.mark.parametrize("target", [*PAYLOADS, *OUR_COMMAND])
@pytest.mark.parametrize("where", ["as the encoder", "inside our encoder"])
def test_a_target_outside_nemos_list_is_refused_before_it_runs(target, where, ctc_file, marker, tmp_path):
    section = payload(target, marker)
    if where == "inside our encoder":
        section = {**ASRModel.restore_from(str(ctc_file), return_config=True).encoder, "adapter": section}
    path = with_config(ctc_file, tmp_path, encoder=section)
    with pytest.raises(ValueError, match=f"Instantiation of unsafe target '{target}' is blocked"):
        EncDecCTCModel.restore_from(path, map_location="cpu")
    assert not marker.exists()


@pytest.mark.parametrize("target", PAYLOADS)  # the program of the command would replace this process
def test_without_nemos_list_the_target_would_run(target, marker):
    made = hydra.utils.instantiate(payload(target, marker))
    if hasattr(made, "wait"):
        made.wait()
    assert marker.exists()


@pytest.mark.skipif(nemo.__version__.startswith("2."), reason="this NeMo version imports any `target`")
@pytest.mark.parametrize("target", ["evil.Encoder", "nemo_squeezeformer_evil.Encoder", "subprocess.Popen"])
def test_a_model_class_outside_nemos_list_is_refused_before_its_import(target, ctc_file, marker, tmp_path):
    path = with_config(ctc_file, tmp_path, target=target)
    for kind in (ASRModel, EncDecCTCModel):
        with pytest.raises(ValueError, match=f"Instantiation of unsafe target '{target}' is blocked"):
            kind.restore_from(path, map_location="cpu")
    assert not marker.exists()


def test_a_file_that_names_the_encoder_is_restored(ctc_file, tmp_path):
    config = ASRModel.restore_from(str(ctc_file), return_config=True)
    ours = "nemo_squeezeformer.SqueezeformerEncoder"
    path = with_config(ctc_file, tmp_path, encoder={**config.encoder, "_target_": ours, "dropout": 0.25})
    model = ASRModel.restore_from(path, map_location="cpu")
    assert isinstance(model.encoder, nemo_squeezeformer.SqueezeformerEncoder) and model.cfg.encoder.dropout == 0.25
