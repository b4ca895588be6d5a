"""Tests of the error for an argument of the encoder that this package does not know, for example of a later NeMo.

The error names the argument, a similar argument, the version of the installed NeMo and the remedy.
"""

from __future__ import annotations

import inspect

import pytest
from hydra.errors import InstantiationException
from nemo.collections.asr.models import ASRModel, EncDecCTCModel
from nemo.core.classes import common
from nemo.core.classes.common import Serialization

from nemo_squeezeformer import SqueezeformerEncoder, core
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration import nemo_versions
from nemo_squeezeformer.integration.legacy import SqueezeformerEncoder as OldName
from nemo_squeezeformer.training.mistakes import misspelt
from nemo_squeezeformer.training.recipes import compose
from tests.integration.test_unsafe_files import with_config
from tests.samples.encoders import SMALL

VERSIONS = (
    f"NeMo {nemo_versions.installed()} is installed. This version of nemo_squeezeformer is tested with NeMo 2.7.3 and "
    "3.0.0, and has the arguments of NeMo's ConformerEncoder up to NeMo 3.0.1."
)
UNKNOWN = (
    f"SqueezeformerEncoder has no argument convolution_gate. {VERSIONS} Remove the argument, or upgrade "
    "nemo_squeezeformer."
)


@pytest.fixture(autouse=True)
def nemos_state():
    """Reset NeMo's state after the test. After an error NeMo would build later models of this process without data."""
    yield
    ASRModel._set_model_restore_state(is_being_restored=False)


@pytest.mark.parametrize("kind", [core.SqueezeformerEncoder, SqueezeformerEncoder, OldName])
def test_the_signature_lists_every_argument_and_no_others(kind):
    arguments = inspect.signature(kind).parameters
    if kind is not OldName:
        assert {"feat_in", "rope_base", "use_triton"} <= set(arguments)
        assert not [each for each in arguments.values() if each.kind is each.VAR_KEYWORD]
    with pytest.raises(TypeError, match=r"no argument rope_bse \(did you mean rope_base\?\)"):
        kind(**SMALL, rope_bse=1.0)
    with pytest.raises(TypeError, match=r"no arguments zzz, n_layer \(did you mean n_layers\?\)"):
        kind(**SMALL, zzz=1, n_layer=2)
    with pytest.raises(TypeError, match="missing .*d_model"):
        kind(feat_in=20, n_layers=1)


def test_the_core_names_no_version_of_nemo():
    with pytest.raises(TypeError) as error:
        core.SqueezeformerEncoder(**SMALL, convolution_gate=True)
    assert str(error.value) == (
        "SqueezeformerEncoder has no argument convolution_gate. Correct the name, or remove the argument."
    )


def test_python_and_nemos_configuration_name_the_argument_and_the_versions():
    with pytest.raises(TypeError) as error:
        SqueezeformerEncoder(**SMALL, convolution_gate=True)
    assert str(error.value) == UNKNOWN
    with pytest.raises(InstantiationException) as wrapped:
        Serialization.from_config_dict(
            {"_target_": "nemo_squeezeformer.SqueezeformerEncoder", **SMALL, "convolution_gate": True}
        )
    assert UNKNOWN in str(wrapped.value).replace('\\"', '"')


def test_the_message_names_the_installed_nemo(tmp_path, monkeypatch):
    written = tmp_path / "nemo_toolkit-3.4.0.dist-info" / "METADATA"
    written.parent.mkdir()
    written.write_text("Metadata-Version: 2.1\nName: nemo_toolkit\nVersion: 3.4.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match="^SqueezeformerEncoder has no argument convolution_gate. NeMo 3.4.0 is inst"):
        SqueezeformerEncoder(**SMALL, convolution_gate=True)


def test_a_file_with_an_unknown_argument_names_the_argument_and_the_versions(
    ctc_file, noises, tmp_path, capsys, monkeypatch
):
    encoder = {**ASRModel.restore_from(str(ctc_file), return_config=True).encoder, "convolution_gate": True}
    path = with_config(ctc_file, tmp_path, encoder=encoder)
    with pytest.raises(InstantiationException) as error:
        EncDecCTCModel.restore_from(path, map_location="cpu")
    assert UNKNOWN in str(error.value)
    said: list[str] = []
    monkeypatch.setattr(common.logging, "error", said.append)
    with pytest.raises(TypeError, match="abstract class ASRModel"):  # NeMo raises this error after every other error
        ASRModel.restore_from(path, map_location="cpu")
    assert UNKNOWN in said[0]
    assert main(["transcribe", path, noises[0]]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nemo-squeezeformer: error:" in line]
    assert "SqueezeformerEncoder has no argument convolution_gate" in line and "upgrade nemo_squeezeformer" in line


def test_a_recipe_with_an_unknown_argument_is_refused_before_nemo_is_imported():
    with pytest.raises(UserError) as error:
        misspelt.check(compose("squeezeformer_ctc_char", ["+model.encoder.convolution_gate=true"]))
    assert str(error.value).startswith("model.encoder.convolution_gate: ") and str(error.value).endswith(VERSIONS)
    with pytest.raises(UserError, match=r"did you mean model\.encoder\.rope_base\?$"):
        misspelt.check(compose("squeezeformer_ctc_char", ["+model.encoder.rope_bse=1"]))
