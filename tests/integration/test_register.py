"""Tests of the registration with NeMo: its effects, its time, and that nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_squeezeformer.integration import nemo_versions

HAS_OWN = "importlib.util.find_spec('nemo.collections.asr.parts.submodules.squeezeformer_modules') is not None"
SMALL = "feat_in=8, n_layers=1, d_model=8"


def run(program: str, path: Path | None = None) -> str:
    """Return the standard error of ``program`` in a new interpreter, which finds packages in the folder ``path``."""
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stderr


def install(version: str, folder: Path) -> None:
    """Write the metadata of an installed NeMo with this version to ``folder``."""
    written = folder / f"nemo_toolkit-{version}.dist-info" / "METADATA"
    written.parent.mkdir()
    written.write_text(f"Metadata-Version: 2.1\nName: nemo_toolkit\nVersion: {version}\n")


def test_importing_the_package_loads_neither_torch_nor_nemo():
    run(
        "import sys, nemo_squeezeformer\n"
        "heavy = {'torch', 'nemo', 'lightning', 'omegaconf', 'hydra'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


ORDERS = {
    "we are first": "import nemo_squeezeformer, nemo.collections.asr",
    "NeMo is first": "import nemo.collections.asr, nemo_squeezeformer",
    "our encoder is first": "from nemo_squeezeformer import SqueezeformerEncoder; import nemo.collections.asr",
    "twice": "import nemo_squeezeformer, importlib, nemo.collections.asr; importlib.reload(nemo_squeezeformer)",
}


@pytest.mark.parametrize(
    "imports",
    [pytest.param(ORDERS[name], id=name, marks=pytest.mark.slow if i > 1 else ()) for i, name in enumerate(ORDERS)],
)
def test_nemo_builds_the_encoder_and_old_names_in_any_order_of_imports(imports, tmp_path):
    program = f"""
{imports}
import importlib, importlib.util
from nemo.core.classes import common
from nemo.core.classes.common import Serialization
from nemo_squeezeformer import SqueezeformerEncoder, SqueezeformerEncoderAdapter

def build(target):
    return type(Serialization.from_config_dict({{"_target_": target, **dict({SMALL})}}))

assert build("nemo_squeezeformer.SqueezeformerEncoder") is SqueezeformerEncoder
assert common.ALLOWED_TARGET_PREFIXES.count("nemo_squeezeformer.") == 1
assert [prefix for prefix in common.ALLOWED_TARGET_PREFIXES if "squeezeformer" in prefix] == ["nemo_squeezeformer."]

old = importlib.import_module("nemo.collections.asr.modules.squeezeformer_encoder")
from nemo.collections.asr import modules
if {HAS_OWN}:  # NeMo's own class stays under NeMo's name
    assert build("nemo.collections.asr.modules.SqueezeformerEncoder").__module__ == old.__name__
    assert old.SqueezeformerEncoder is not SqueezeformerEncoder
else:
    legacy = build("nemo.collections.asr.modules.SqueezeformerEncoder")
    assert issubclass(legacy, SqueezeformerEncoder) and legacy is old.SqueezeformerEncoder
    adapter = "nemo.collections.asr.modules.squeezeformer_encoder.SqueezeformerEncoderAdapter"
    assert issubclass(build(adapter), SqueezeformerEncoderAdapter) and issubclass(build(adapter), legacy)
    assert modules.squeezeformer_encoder is old and modules.SqueezeformerEncoder is old.SqueezeformerEncoder
assert not hasattr(modules, "NoSuchEncoder") and not hasattr(old, "NoSuchEncoder")

from nemo.collections.asr.models import EncDecCTCModelBPE
assert EncDecCTCModelBPE.get_available_model_names().count("stt_en_squeezeformer_ctc_xsmall_ls") == 1
"""
    install("3.1.0", tmp_path)
    assert run(program, tmp_path).count("NeMo 3.1.0 is installed, but") == 1


def test_a_hydra_program_finds_the_recipes_and_the_encoder(tmp_path):
    (tmp_path / "program.py").write_text(
        "import hydra, sys\n"
        "@hydra.main(version_base=None, config_name='squeezeformer_ctc_char')\n"
        "def main(cfg):\n"
        "    assert 'nemo_squeezeformer' in sys.modules and 'torch' not in sys.modules\n"
        "    print(cfg.model.encoder.d_model, cfg.model.encoder._target_)\n"
        "main()\n"
    )
    command = [sys.executable, "program.py", "size=m", f"hydra.run.dir={tmp_path}"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.stdout.split() == ["324", "nemo_squeezeformer.SqueezeformerEncoder"], process.stderr[-2000:]


@pytest.mark.parametrize("version", ["3.0.1", "3.1.0", "2.6.2", *nemo_versions.TESTED])
def test_a_version_that_was_not_tested_is_named_with_the_tested_versions(version, tmp_path, monkeypatch):
    assert nemo_versions.complaint() == ""
    install(version, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = nemo_versions.complaint()
    if version in nemo_versions.TESTED:
        assert text == ""
    else:
        assert text.startswith(f"NeMo {version} is installed, but ") and "\n" not in text
        assert "NeMo 2.7.3 and 3.0.0" in text and "install nemo_toolkit[asr]==3.0.0" in text
