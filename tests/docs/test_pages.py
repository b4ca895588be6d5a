"""Tests of the pages as a whole: links work, every page is linked, and figures and measurements name their program."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import draw_network
import pytest
import torch

from nemo_squeezeformer.core import SqueezeformerEncoder
from tests.samples import pages
from tests.samples.pages import DOCS, PAGES, PROGRAM, anchors, figures, links, name, prose, sections, sources
from tests.samples.paths import ROOT

README, INDEX, BENCHMARKS = ROOT / "README.md", ROOT / "docs" / "README.md", ROOT / "docs" / "benchmarks.md"
MEASURED = re.compile(r"\b(?:MiB|GiB|MB|kB|WER|CER|GFLOPs)\b|\d ?%|[\d,|] ?m?s\b")
# A section with a table of measurements names the results, the program or the command, or says that it is published.
SOURCE = re.compile(
    r"benchmarks/results/\S+|`python -m benchmarks\.\w+|tests/[\w/]+\.py|get_initial_cache_state"
    r"|nemo-squeezeformer trans|[Pp]ublished|by its model card|no program under `benchmarks/`"
)


def target(page: Path, link: str) -> tuple[Path, str]:
    path, _, anchor = link.partition("#")
    return (page.parent / path).resolve() if path else page, anchor


def dead(page: Path) -> list[str]:
    """Return the links of a page whose target does not exist."""
    found = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, anchor = target(page, link)
        if not path.exists() or (anchor and anchor not in anchors(path)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_anchors_exist(page):
    assert dead(page) == []


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, `two`\n[a](#one-two) [b](#three) [c](none.md) [d](page.md#one-two) `[e](no-link)`\n")
    assert dead(page) == ["#three", "none.md"]


def test_every_page_can_be_reached_from_the_readme_and_from_the_index():
    for start in (README, INDEX):
        seen, waiting = set(), [start]
        while waiting:
            page = waiting.pop()
            seen.add(page)
            reached = {target(page, link)[0] for link in links(page) if "://" not in link}
            waiting += [path for path in reached if path.suffix == ".md" and path not in seen]
        assert set(PAGES) <= seen, [name(page) for page in PAGES if page not in seen]


def test_the_index_lists_every_page_and_every_page_ends_with_a_next_page():
    listed = {target(INDEX, link)[0] for link in links(INDEX)}
    assert {*DOCS, ROOT / "CONTRIBUTING.md"} - {INDEX} <= listed
    for page in set(DOCS) - {INDEX}:
        last = prose(page).strip().split("\n\n")[-1]
        assert last.startswith("Next: ") and "(README.md)" in last, f"{name(page)} does not end with 'Next: ' and links"
    assert f"{INDEX.parent.name}/{INDEX.name}" in links(README)


def where(page: Path, part: str) -> set[str]:
    """Return the existing programs that a part of a page names."""
    return {program for program in PROGRAM.findall(part) if sources(program)}


@pytest.mark.parametrize("page", [page for page in PAGES if figures(page)], ids=name)
def test_a_figure_has_an_alternative_text_and_names_its_program(page):
    for text, file in figures(page):
        path = (page.parent / file).resolve()
        if page in DOCS:
            assert len(text.split()) >= 10, f"{file}: the alternative text is missing or too short: {text!r}"
        part = next((part for part in sections(page).values() if f"]({file})" in part), prose(page))
        drawn_by = where(page, part) or where(page, prose(page))
        assert drawn_by, f"{file}: {name(page)} does not name the program that draws it"
        drawing = [source for program in drawn_by for source in sources(program) if path.suffix in source.read_text()]
        assert drawing, f"{file}: {', '.join(drawn_by)} does not write {path.suffix} files"


def test_every_figure_is_on_a_page():
    shown = {(page.parent / file).resolve() for page in PAGES for _, file in figures(page)}
    made = [path for folder in ("docs", "benchmarks/results") for path in (ROOT / folder).rglob("*")]
    assert {path for path in made if path.suffix in (".png", ".svg")} == shown


def tables(text: str) -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", text + "\n", flags=re.MULTILINE)


def unsourced(text: str) -> list[str]:
    """Return the tables of measurements in sections that do not name a source of the numbers."""
    parts = re.split(r"^#+ ", text, flags=re.MULTILINE)
    return [
        table
        for part in parts
        for table in tables(part)
        if MEASURED.search(table) and re.search(r"\|[^|\n]*\d", table) and not SOURCE.search(part)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if "results" not in page.parts], ids=name)
def test_a_table_of_measurements_names_its_source(page):
    assert unsourced(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", pages.RESULTS, ids=name)
def test_a_page_of_results_names_its_program(page):
    assert where(page, page.read_text(encoding="utf-8")), name(page)


def test_a_table_without_a_source_is_found():
    table = "| | ms |\n|---|---|\n| ours | 12 |\n"
    assert unsourced(f"## A\n\n{table}\n## B\n\nBy `python -m benchmarks.speed`.\n") == [table]
    assert unsourced(f"## A\n\n{table}\nBy `python -m benchmarks.speed`.\n") == []


def test_only_runnable_programs_count():
    programs = ["benchmarks.speed", "benchmarks.streaming.time", "docs/figures/draw_network.py"]
    text = "`python -m benchmarks.speed`, `python -m benchmarks.streaming.time`; docs/figures/draw_network.py"
    assert PROGRAM.findall(text) == programs and where(README, text) == set(programs)
    others = ["nothing", "measuring.tables", "streaming"]
    assert where(README, " ".join(f"`python -m benchmarks.{name}`" for name in others)) == set()
    assert PROGRAM.findall("benchmarks/speed.py and benchmarks.speed") == []


def test_every_page_of_results_is_linked():
    asked = {target(BENCHMARKS, link)[0] for link in links(BENCHMARKS)}
    programs = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for page in pages.RESULTS:
        assert page in asked, f"docs/benchmarks.md does not link {name(page)}"
        assert str(page.relative_to(ROOT / "benchmarks")) in programs, (
            f"benchmarks/README.md does not link {name(page)}"
        )


def test_the_committed_drawings_equal_new_drawings(tmp_path):
    draw_network.main(["--output", str(tmp_path)])
    committed = ROOT / "docs" / "figures"
    assert {path.name for path in committed.glob("*.svg")} == {path.name for path in tmp_path.iterdir()}
    for made in tmp_path.iterdir():
        svg = made.read_text(encoding="utf-8")
        assert (committed / made.name).read_text(encoding="utf-8") == svg, (
            f"{made.name} is out of date: run docs/figures/draw_network.py"
        )
        ElementTree.fromstring(svg)


def test_a_drawing_has_every_layer_at_its_frame_rate():
    with torch.device("meta"):
        encoder = SqueezeformerEncoder(80, 7, 8, time_reduce_idx=[1, 4], time_recovery_idx=[3, 6], subsampling_factor=8)
    drawn = ElementTree.fromstring(draw_network.temporal_unet(encoder, "two U-Nets in sequence"))
    place = {text.text: float(text.get("y")) for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert [place[str(i)] for i in (0, 3, 6)] == 3 * [place["0"]]
    assert [place[str(i)] for i in (1, 2, 4, 5)] == 4 * [place["1"]]
    assert place["0"] < place["1"]
    assert {"10 ms", "80 ms", "160 ms", "T / 8 frames", "T / 16 frames"} < set(place)
    assert "40 ms" not in place


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = re.findall(r"^ +- [^:]+: (\S+)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    files = [*DOCS, *(ROOT / "docs").glob("api/*.md"), *(ROOT / "docs").glob("*.ipynb"), README, ROOT / "CHANGELOG.md"]
    assert sorted(navigation) == sorted(name(file) for file in files)
