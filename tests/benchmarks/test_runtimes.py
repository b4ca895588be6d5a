"""The benchmark of exported models in sherpa-onnx."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("sherpa_onnx")
pytest.importorskip("onnxruntime")

from benchmarks.runtimes import __main__ as program
from benchmarks.runtimes.folders import ENCODERS, PRECISIONS


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
