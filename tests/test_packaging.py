"""A test of the contents of the wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

from tests.samples.paths import ROOT


def test_the_wheel_contains_only_package_recipes_and_hydra_plugin(tmp_path):
    source = tmp_path / "source"  # a copy, because a build leaves files that a later build would include
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"nemo_squeezeformer/conf/{path.relative_to(ROOT / 'conf')}" for path in ROOT.glob("conf/**/*.yaml")}
    assert len(recipes) > 10 and recipes <= names
    assert {"hydra_plugins/nemo_squeezeformer/__init__.py", "nemo_squeezeformer/py.typed"} <= names
    pages = {str(path.relative_to(ROOT)) for path in ROOT.glob("nemo_squeezeformer/serving/page/*")}
    assert len(pages) > 4 and pages <= names
    assert "hydra_plugins/__init__.py" not in names  # this file would hide the plugins of other packages
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nemo_squeezeformer", "hydra_plugins"}
