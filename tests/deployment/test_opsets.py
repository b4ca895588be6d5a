"""Tests that ONNX Runtime runs the graphs of every accepted opset, and that other versions are refused at once."""

from __future__ import annotations

import onnx
import pytest

pytest.importorskip("onnxruntime")

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings, export
from nemo_squeezeformer.deployment.onnx.opsets import OPSETS
from nemo_squeezeformer.deployment.onnx_stream.__main__ import main as transcribe
from nemo_squeezeformer.errors import UserError
from tests.samples.asr_models import asr_model, spelling_model

STREAMING = {
    "encoder": {"streaming": True, "att_context_size": [16, 3]},
    "preprocessor": {"normalize": "NA"},
}


@pytest.mark.parametrize("opset", ["-1", "0", "9", "11", "12", "24", "1000"])
def test_an_opset_whose_graphs_do_not_run_is_refused_before_the_model_is_loaded(opset, ctc_file, tmp_path, capsys):
    assert main(["export", str(ctc_file), "--offline", "--output", str(tmp_path / "a.onnx"), "--opset", opset]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--opset {opset}" in line and "opset 13 to 23" in line
    with pytest.raises(UserError, match="opset 13 to 23"):
        export(asr_model(), tmp_path / "a.onnx", GraphSettings(False, int(opset)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rel_pos", "rope"])
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_every_accepted_opset_gives_the_same_text(kind, positions, noises, tmp_path, capsys):
    encoder = STREAMING["encoder"] | {"self_attention_model": positions}
    model = spelling_model(kind, noises, **STREAMING | {"encoder": encoder})
    model.save_to(str(tmp_path / "model.nemo"))
    texts = set()
    for opset in OPSETS:
        given = ["export", str(tmp_path / "model.nemo"), "--output", str(tmp_path / "a.onnx"), "--force"]
        assert main([*given, "--opset", str(opset)]) == 0
        written = tmp_path / ("a.onnx" if kind == "ctc" else "encoder-a.onnx")
        versions = {entry.domain: entry.version for entry in onnx.load(str(written)).opset_import}
        assert versions[""] == opset
        capsys.readouterr()
        assert transcribe([str(tmp_path / "a.onnx"), "--quiet", *noises]) == 0
        texts.add(capsys.readouterr().out)
    (text,) = texts
    assert len(text) > 50
