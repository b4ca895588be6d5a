"""Tests that numbers and tables on the pages agree with the results of the benchmarks."""

from __future__ import annotations

import json
import re

import pytest

from tests.samples import quotes
from tests.samples.pages import PROGRAM, sections, sources
from tests.samples.paths import ROOT

DOCS = ROOT / "docs"
BENCHMARKS, HOW_IT_WORKS = DOCS / "benchmarks.md", DOCS / "how-it-works.md"
RESULTS = ROOT / "benchmarks" / "results"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def rows(text: str) -> set[str]:
    return {
        "|".join(cell.strip() for cell in line.split("|")) for line in re.findall(r"^\|.*$", text, flags=re.MULTILINE)
    }


def numbers(text: str) -> set[str]:
    """Return the numbers in a text, without numbers in links, code, versions and words such as float32."""
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|\b[A-Za-z][\w.+-]*|\d+\.\d+\.\d+", " ", text)
    return {number.rstrip(",") for number in NUMBER.findall(text)}


def invented(part: str, results: str, held: set[str] | frozenset[str] = frozenset()) -> set[str]:
    """Return the rows and numbers of a section that its results do not contain.

    Args:
        held: Rows that are made from several results. They are accepted, and their numbers too.
    """
    strange = {row for row in rows(part) if re.search(r"\d", row)} - rows(results) - held
    spoken = re.sub(r"^\|.*$", "", part, flags=re.MULTILINE)
    known = set(NUMBER.findall(results)) | {number for row in held & rows(part) for number in NUMBER.findall(row)}
    return strange | (numbers(spoken) - known)


def linked_results(part: str) -> str:
    files = re.findall(r"\]\((?:\.\./)?(benchmarks/results/[^)#]+)\)", part)
    return "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files if not file.endswith((".png", ".svg")))


@pytest.mark.parametrize("question", list(sections(BENCHMARKS)))
def test_the_page_of_benchmarks_quotes_the_results(question):
    part = sections(BENCHMARKS)[question]
    results = linked_results(part)
    assert results, "no page of results is linked"
    assert any(sources(program) for program in PROGRAM.findall(part)), "no program is named"
    assert invented(part, results, rows("\n".join(made() for made in quotes.ALL))) == set()


@pytest.mark.parametrize("made", quotes.ALL, ids=lambda made: made.__name__)
def test_the_page_of_benchmarks_has_the_whole_table(made):
    table = made()
    assert len(table.splitlines()) > 3 and f"\n\n{table}\n\n" in BENCHMARKS.read_text(encoding="utf-8")


def test_the_page_how_it_works_quotes_the_papers_argument():
    part = sections(HOW_IT_WORKS)["The paper's argument"]
    assert invented(part, linked_results(part)) == set()


def test_an_invented_number_and_an_invented_row_are_found():
    results = "| ours | 12.5 |\nabout 34 of them\n"
    assert invented("| ours | 12.5 |\nsay 34", results) == set()
    assert invented("| ours | 12.6 |\nsay 35", results) == {"|ours|12.6|", "35"}


def cells(page: str, head: str, keys: int = 1) -> dict[str, list[str]]:
    """Return the rows of the first table after ``head`` on a page of results, by their first ``keys`` cells."""
    text = (RESULTS / page).read_text(encoding="utf-8")
    table = re.findall(r"(?:^\|.*\n)+", text.split(head)[1].split("\n#")[0], flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {", ".join(row[:keys]): row[keys:] for row in rows}


def test_deploy_quotes_the_speed_of_onnx_runtime():
    page = (DOCS / "deploy.md").read_text(encoding="utf-8")
    measured = cells("onnx_speed.md", "### 1 thread")
    for form, called in (
        ("PyTorch, `optimize_for_inference()`", "PyTorch, `optimize_for_inference()`"),
        ("ONNX Runtime, float32", "ONNX Runtime, float32"),
        ("ONNX Runtime, int8", "ONNX Runtime, int8"),
    ):
        ratios = [cell.split(", ")[1] for cell in measured[f"our Squeezeformer, {form}"]]
        assert f"| {called} | {' | '.join(ratios)} |" in page


def test_deploy_quotes_the_accuracy_of_onnx_runtime():
    page = (DOCS / "deploy.md").read_text(encoding="utf-8")
    found = (RESULTS / "onnx_accuracy.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines() if "EncDec" in line]
    for form, write in (("float32", lambda x: f"{x:.0e}".replace("e-0", "e-")), ("int8", lambda x: f"{x:.3f}")):
        mine = [row for row in rows if row[1] == f"ONNX Runtime, {form}"]
        errors = sorted(float(row[3]) for row in mine)
        wer = " | ".join(f"{row[5]} %" for row in mine)
        assert f"| ONNX Runtime, {form} | {write(errors[0])} to {write(errors[-1])} | {wer} |" in page
    assert f"| torch | | {' | '.join(f'{row[5]} %' for row in rows if row[1] == 'torch')} |" in page
    assert sum(int(row[4]) for row in rows) == 1 and "Int8 changed one of these 160 texts." in page


def test_training_quotes_the_speed():
    page = (DOCS / "train.md").read_text(encoding="utf-8")
    data = json.loads((RESULTS / "speed" / "cpu-nemo-2.7.3.json").read_text())
    steps, memory = data["training"][0]["measured"], data["training_memory"][0]["measured"]
    for precision, ending in (("float32", ""), ("bf16", ", bf16")):
        theirs, ours = (f"{steps[name + ending]['ms'][1] / 1000:.1f} s" for name in ("in-tree", "ours"))
        what = f"time of a step (forward and backward), utterances of up to 12 s, {precision}"
        assert f"| {what} | {theirs} | {ours} |" in page
    theirs, ours = (f"{memory[name]['MiB']:,.0f} MiB" for name in ("in-tree", "ours"))
    assert f"| memory in addition to the model, utterances of up to 30 s | {theirs} | {ours} |" in page


def test_the_readme_quotes_speed_memory_and_streams():
    def at_60_s(head: str, encoder: str) -> str:
        return cells("speed/README.md", head)[encoder][3].split(" ")[0]

    def stream(page: int, column: int) -> str:
        text = (RESULTS / "streaming_time.md").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.startswith("| 480 ms | 1 | 1 |")]
        return lines[page].split(" | ")[column].split(" ")[0]

    time, memory = "### Inference, batch 1, 1 thread", "### Memory of inference, batch 1"
    old, sdpa, fast = "NeMo 2.7.3's Squeezeformer", "NeMo's Conformer, SDPA", "NeMo's FastConformer"
    ours, part = "our Squeezeformer", sections(ROOT / "README.md")["Compared with NeMo"]
    for head, unit, mine in (
        (time, "ms", f"{at_60_s(time, ours)} ms; 8x: {at_60_s(time, f'{ours}, 8x')} ms"),
        (memory, "MiB", f"{at_60_s(memory, ours)} MiB"),
    ):
        nemos = f"{at_60_s(head, old)} {unit} | {at_60_s(head, sdpa)} {unit} (SDPA) | {at_60_s(head, fast)} {unit}"
        assert f"| {mine} | {nemos} |" in part
    assert f"| {stream(0, 3)} ms; 8x: {stream(1, 3)} ms | - | {stream(0, 4)} ms | {stream(1, 4)} ms |" in part


def test_the_readme_quotes_what_small_encoders_learn():
    measured = cells("learning/README.md", "## synthetic\n", keys=3)
    names = ("Squeezeformer, DeepNorm", "Squeezeformer", "Conformer, equal operations")
    ours, published, theirs = (measured[f"{name}, 0.0015, 4000"][1].split(" ")[0] for name in names)
    part = " ".join(sections(ROOT / "README.md")["Compared with NeMo"].split())
    assert (
        f"The word error rate is {ours} % with Squeezeformer and DeepNorm, {published} % with Squeezeformer without "
        f"DeepNorm, and {theirs} % with NeMo's Conformer" in part
    )
