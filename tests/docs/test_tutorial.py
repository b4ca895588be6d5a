"""The test that runs the tutorial notebook as a reader would run it."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.samples.paths import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_trains_a_model_that_transcribes_and_streams(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for folder in ("docs", "scripts"):  # the notebook writes to build/ beside them
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    folder = str(tmp_path / "docs")
    nbclient.NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": folder}}).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    (wer,) = re.findall(r"^WER: ([\d.]+)%$", printed, flags=re.MULTILINE)
    assert float(wer) < 60, printed  # an untrained model has 100 %; runs without a seed had 42.9 and 44.7 %
    (final,) = re.findall(r"^final\t(.*)$", printed, flags=re.MULTILINE)
    (reference,) = re.findall(r"^reference: (.*)$", printed, flags=re.MULTILINE)
    assert set(final.split()) & set(reference.split()), printed


def test_the_tutorial_shows_its_outputs_and_no_path_of_a_machine():
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    text = json.dumps([cell["outputs"] for cell in code])
    assert "image/png" in text and "final\\t" in text.replace("\\\\t", "\\t")
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)
