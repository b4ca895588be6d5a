"""The benchmarks of exported models in sherpa-onnx and onnx-asr."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("sherpa_onnx")
pytest.importorskip("onnxruntime")

from benchmarks.measuring.results import RESULTS
from benchmarks.runtimes import __main__ as program
from benchmarks.runtimes.folders import ENCODERS, PRECISIONS
from tests.samples.asr_models import spelling_model
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest


@pytest.mark.slow
def test_the_page_has_a_row_for_each_encoder_and_precision(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    given = ["--sizes", "quick", "--seconds", "2", "--calls", "2", "--work", str(tmp_path), "--output", str(page)]
    monkeypatch.setattr(sys, "argv", ["runtimes", *given])
    program.main()
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == [f"{name}, {precision}" for name in ENCODERS for precision in PRECISIONS]
    factors = {row[0]: row[2].rpartition(", ")[2] for row in rows}
    assert factors["FastConformer, float32"] == factors["FastConformer, int8"] == "1.00x"


def cells_of(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_the_page_of_runtimes_quotes_the_compared_texts():
    digits, sentences = (RESULTS / "runtimes_texts.md").read_text(encoding="utf-8").split("\n## ")[1:]
    measured, other = ({tuple(cells[:4]): cells[4:] for cells in cells_of(part)[2:]} for part in (digits, sentences))
    assert {cells[0] for cells in (*measured.values(), *other.values())} == {"40 of 40"}  # from the same features
    page = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
    quoted = {tuple(cells[:4]): cells[4:] for cells in cells_of(page) if tuple(cells[:4]) in measured}
    streams = {form for _, _, form, _ in quoted if form.startswith("streams")}
    assert streams == {"streams, 80 ms", "streams, 480 ms", "streams, 1040 ms"}
    for key, cells in quoted.items():
        assert cells == [measured[key][1], other[key][1], *measured[key][2:]]
    most = max(abs(float(cells[2]) - float(cells[3])) for cells in quoted.values())
    assert f"change the WER by at most {most:.1f} points" in " ".join(page.split())
    by_onnx_asr = [cells[1] for part in (measured, other) for key, cells in part.items() if key[3] == "onnx-asr"]
    assert by_onnx_asr and set(by_onnx_asr) == {"40 of 40"}


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
