"""The benchmarks of exported models in sherpa-onnx and onnx-asr."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("sherpa_onnx")
pytest.importorskip("onnxruntime")

from benchmarks.runtimes import __main__ as program
from benchmarks.runtimes.folders import ENCODERS, PRECISIONS
from tests.samples.asr_models import spelling_model
from tests.samples.speech import write_manifest


@pytest.mark.slow
def test_the_page_has_a_row_for_each_encoder_and_precision(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    given = ["--sizes", "quick", "--seconds", "2", "--turns", "2", "--work", str(tmp_path), "--output", str(page)]
    monkeypatch.setattr(sys, "argv", ["runtimes", *given])
    program.main()
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == [f"{name}, {precision}" for name in ENCODERS for precision in PRECISIONS]
    factors = {row[0]: row[2].rpartition(", ")[2] for row in rows}
    assert factors["FastConformer, float32"] == factors["FastConformer, int8"] == "1.00x"


@pytest.mark.slow
def test_the_texts_of_a_model_are_compared_in_each_runtime(noises, tmp_path, capsys):
    pytest.importorskip("onnx_asr")
    from benchmarks.runtimes import texts

    spelling_model("ctc", noises, preprocessor={"window_size": 0.025}).save_to(str(tmp_path / "ctc.nemo"))
    manifest = write_manifest(tmp_path, utterances=3, seconds=1.503)
    given = ["--manifests", str(manifest), "--count", "2", "--work", str(tmp_path)]
    texts.main([str(tmp_path / "ctc.nemo"), *given])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ctc")]
    assert [row[:4] for row in rows] == [
        ["ctc", "CTC", "whole utterances", name] for name in ("sherpa-onnx", "onnx-asr")
    ]
    assert [row[4] for row in rows] == ["2 of 2"] * 2 and rows[1][5] == "2 of 2"
