"""The pages that people read, taken apart: blocks of code, links, headings, tables and figures."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.samples.paths import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").rglob("*.md"))
TYPED = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *DOCS,
    ROOT / "benchmarks" / "README.md",
]  # that say what to type
PAGES = [*TYPED, ROOT / "CHANGELOG.md", *RESULTS]

PROGRAM = re.compile(r"(?<=python -m )benchmarks(?:\.\w+)+|(?:docs/figures|scripts)/\w+\.py")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: what stands after the fence (``bash``), and the lines in it."""

    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines without comments; those that end in a backslash are one with the next."""
        lines = re.sub(r"(^|\s)#.*", "", self.text.replace("\\\n", ""), flags=re.MULTILINE).splitlines()
        return [line.strip() for line in lines if line.strip()]


def sources(program: str) -> list[Path]:
    """The files of a program, such as ``benchmarks.speed`` or ``scripts/demo.py``; none where it does not exist."""
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
    """The page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """What its links and figures lead to, as written."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def figures(page: Path) -> list[tuple[str, str]]:
    """Alternative text and file of each figure."""
    return re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def sections(page: Path) -> dict[str, str]:
    """What stands under each heading of the second level, by heading."""
    parts = re.split(r"^## +(.+?) *$", prose(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))
