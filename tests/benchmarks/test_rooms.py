"""Tests of imports between benchmarks: a question may import only from its own folder and from ``measuring``."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.samples.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
ROOMS = sorted(path.parent.name for path in BENCHMARKS.glob("*/__init__.py"))
FILES = {path.stem for path in BENCHMARKS.glob("*/*.py")} - set(sys.stdlib_module_names)


def imported(source: str) -> set[str]:
    """Return all imports in a source, also inside functions, together with the names imported from modules."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def strays(source: str, room: str) -> set[str]:
    """Return the imports that ``room`` must not have: other rooms, and benchmark files without their package name."""
    others = {f"benchmarks.{name}" for name in ROOMS} - {f"benchmarks.{room}", "benchmarks.measuring"}
    parts = {name: name.split(".") for name in imported(source)}
    return {name for name, path in parts.items() if ".".join(path[:2]) in others or path[0] in {*FILES, ""}}


@pytest.mark.parametrize("room", ROOMS)
def test_no_question_imports_from_another_question(room):
    for path in (BENCHMARKS / room).glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert strays(source, room) == set(), path.name
        assert "sys.path" not in source, path.name


def test_imports_from_another_question_are_found():
    assert strays("from benchmarks.measuring import timing\nfrom benchmarks.speed.plan import Plan", "speed") == set()
    assert strays("def f():\n    from benchmarks.speed.plan import Plan", "ladder") == {"benchmarks.speed.plan.Plan"}
    assert strays("from benchmarks.speed import plan", "measuring") == {"benchmarks.speed.plan"}
    assert strays("from timing import interleaved", "speed") == {"timing.interleaved"}
