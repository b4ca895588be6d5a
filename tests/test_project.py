"""Tests that workflows, citation, notice, metadata and hooks of the repository agree with the code and each other."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import nemo_squeezeformer
from nemo_squeezeformer.integration import nemo_versions
from tests.samples.paths import ROOT

VERSION = nemo_squeezeformer.__version__
CONSTRAINTS = ("constraints.txt", "constraints-nemo-2.7.3.txt")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def workflow(path: str | Path) -> dict[str, Any]:
    loaded = yaml.safe_load(read(path))
    assert isinstance(loaded, dict)
    return loaded


CI, RELEASE = workflow(".github/workflows/ci.yml"), workflow(".github/workflows/release.yml")


def steps(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in loaded["jobs"].values() for step in job["steps"]]


def made(loaded: dict[str, Any]) -> set[str]:
    """Return the make targets that the steps of a workflow call."""
    return {target for step in steps(loaded) for target in re.findall(r"\bmake +([\w.-]+)", step.get("run", ""))}


def targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([\w.-]+):(?!=)", makefile, flags=re.MULTILINE)) - {".PHONY"}


def metadata() -> dict[str, Any]:
    """Return the arguments of ``setup()`` that the tests compare."""
    calls = [node for node in ast.walk(ast.parse(read("setup.py"))) if isinstance(node, ast.Call)]
    (setup,) = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "setup")
    given = {keyword.arg: keyword.value for keyword in setup.keywords}
    return {key: ast.literal_eval(given[key]) for key in ("name", "license", "classifiers", "python_requires")}


def test_there_are_workflows_for_changes_and_for_releases():
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "release.yml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_read_permissions_timeouts_and_pinned_actions(path):
    loaded = workflow(path)
    assert True in loaded, "YAML 1.1 reads the key `on` as true"
    assert loaded["permissions"] == {"contents": "read"} and "concurrency" in loaded
    for name, job in loaded["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 360, name
        assert set(job.get("needs", "").split()) <= set(loaded["jobs"]), name
        assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {}), name
    for step in steps(loaded):
        assert ("run" in step) != ("uses" in step), step
        assert re.search(r"@(v|release/v)\d+$", step.get("uses", "@v1")), step


def test_every_target_of_make_in_a_workflow_is_in_the_makefile():
    there = targets(read("Makefile"))
    assert made(CI) == {"lint", "test", "test-slow", "test-nemo-2.7.3", "docs", "lowest"}
    assert made(CI) | made(RELEASE) <= there
    assert made({"jobs": {"a": {"steps": [{"run": "make tset PYTHON=python"}, {"uses": "b@v1"}]}}}) - there == {"tset"}


def test_the_tested_python_versions_equal_the_versions_in_the_metadata():
    tested = CI["jobs"]["test"]["strategy"]["matrix"]["python"]
    promised = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in metadata()["classifiers"]]
    assert tested == [match[1] for match in promised if match]
    assert metadata()["python_requires"] == f">={tested[0]}"


def test_the_badges_of_the_readme_name_the_supported_versions():
    badges = "\n".join(re.findall(r"!\[([^\]]+)\]\(https://img", read("README.md")))
    pythons = re.findall(r"Python :: (3\.\d+)", " ".join(metadata()["classifiers"]))
    assert f"Python {pythons[0]} to {pythons[-1]}" in badges
    (torch,) = re.findall(r'"torch>=([\d.]+)"', read("setup.py"))
    assert f"PyTorch {torch} or later" in badges
    pinned = [re.findall(r"^nemo-toolkit==([\d.]+)", read(file), flags=re.MULTILINE) for file in CONSTRAINTS]
    assert f"NeMo {pinned[0][0]} and {pinned[1][0]}" in badges
    assert f"License {metadata()['license']}" in badges


def test_the_extra_for_nemo_admits_the_tested_versions_and_no_later_version():
    from packaging.specifiers import SpecifierSet

    pinned = [re.findall(r"^nemo-toolkit==([\d.]+)", read(file), flags=re.MULTILINE) for file in CONSTRAINTS]
    assert sorted(sum(pinned, [])) == sorted(nemo_versions.TESTED)
    (admitted,) = re.findall(r'"nemo_toolkit\[asr\]([^"]+)"', read("setup.py"))
    range_ = SpecifierSet(admitted)
    assert all(version in range_ for version in nemo_versions.TESTED)
    assert not [version for version in ("2.7.2", "3.0.1", "3.1.0", nemo_versions.KNOWN) if version in range_]


def test_slow_tests_run_every_week_and_on_demand_only():
    triggers = CI[True]  # the key `on`
    assert triggers["schedule"] and "workflow_dispatch" in triggers
    assert "schedule" in CI["jobs"]["test-slow"]["if"] and "workflow_dispatch" in CI["jobs"]["test-slow"]["if"]


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("sed")), reason="the step is a program for bash")
@pytest.mark.parametrize(
    ("tag", "status"), [(f"v{VERSION}", 0), (VERSION, 1), (f"v{VERSION}.1", 1), (f"v{VERSION}rc1", 1), ("v", 1)]
)
def test_a_release_requires_the_tag_of_the_version(tag, status):
    (check,) = (step["run"] for step in RELEASE["jobs"]["build"]["steps"] if "tag" in step.get("name", ""))
    run = subprocess.run(["bash", "-ec", check], cwd=ROOT, env=os.environ | {"GITHUB_REF_NAME": tag})
    assert run.returncode == status


def test_a_release_publishes_only_checked_files():
    build, publish = RELEASE["jobs"]["build"], RELEASE["jobs"]["publish"]
    assert publish["needs"] == "build" and publish["environment"]["name"] == "pypi"
    commands = "\n".join(step.get("run", "") for step in build["steps"])
    assert commands.index("GITHUB_REF_NAME") < commands.index("-m build") < commands.index("twine check")
    assert not any("run" in step for step in publish["steps"])


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # GitHub shows nothing without them
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert str(citation["version"]) == VERSION and citation["license"] == metadata()["license"]
    assert citation["title"] == metadata()["name"]
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys() and paper["url"].endswith("2206.00888")
    assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])
    assert len(paper["authors"]) == 8


def test_the_notice_names_the_licenses_and_the_parts_that_are_not_distributed():
    notice = read("NOTICE")
    for licence in ("Apache License, Version 2.0", "CC-BY-4.0", "GPL-3.0"):
        assert licence in notice
    assert "Nothing listed below is part of this distribution." in notice
    assert "Apache License" in read("LICENSE") and metadata()["license"] == "Apache-2.0"
    for path in re.findall(r"\b[\w/-]+\.md\b", notice):
        assert (ROOT / path).is_file(), path


def test_no_committed_file_is_larger_than_the_hook_allows():
    hooks = {
        hook["id"]: hook for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]
    }
    (limit,) = (int(value.removeprefix("--maxkb=")) for value in hooks["check-added-large-files"]["args"])
    folders = ("benchmarks", "conf", "docs", "nemo_squeezeformer", "scripts", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    large = [path for path in files if path.is_file() and path.stat().st_size > limit * 1024]
    assert len(files) > 100 and large == []


def test_issue_forms_parse_and_ask_for_what_a_report_needs():
    forms = {path.stem: yaml.safe_load(read(path)) for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")}
    for form in forms.values():
        assert {"name", "description", "body"} <= form.keys()
    assert {field["id"] for field in forms["bug"]["body"]} >= {"versions", "recipe", "command", "error"}
