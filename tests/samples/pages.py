"""The parts of the Markdown pages: code blocks, links, headings, sections and figures."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.samples.paths import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").rglob("*.md"))
# Pages with commands to type.
TYPED = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *DOCS,
    ROOT / "benchmarks" / "README.md",
]
PAGES = [*TYPED, ROOT / "CHANGELOG.md", *RESULTS]

PROGRAM = re.compile(r"(?<=python -m )benchmarks(?:\.\w+)+|(?:docs/figures|scripts)/\w+\.py")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced code block: the text after the opening fence, for example ``bash``, and the lines of the block."""

    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of the block without comments. A line that ends with a backslash is joined with the next line."""
        lines = re.sub(r"(^|\s)#.*", "", self.text.replace("\\\n", ""), flags=re.MULTILINE).splitlines()
        return [line.strip() for line in lines if line.strip()]


def sources(program: str) -> list[Path]:
    """Return the files of a program, for example ``benchmarks.speed`` or ``scripts/demo.py``.

    Return an empty list if the program does not exist.
    """
    if program.endswith(".py"):
        script = ROOT / program
        return [script] if script.exists() else []
    module = ROOT.joinpath(*program.split("."))
    if (module / "__main__.py").exists():
        return sorted(module.glob("*.py"))
    script = module.with_suffix(".py")
    return [script] if script.exists() and '__name__ == "__main__"' in script.read_text(encoding="utf-8") else []


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    return [Block(kind.strip(), text) for kind, text in FENCE.findall(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Return the targets of links and figures, as the page has them."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def figures(page: Path) -> list[tuple[str, str]]:
    """Return the alternative text and the file of each figure of the repository. A badge comes from a server."""
    return re.findall(r"!\[([^\]]*)\]\((?!https://)([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes for the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def sections(page: Path) -> dict[str, str]:
    """Return the text below each heading of the second level, by heading."""
    parts = re.split(r"^## +(.+?) *$", prose(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))
