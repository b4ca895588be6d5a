"""Commands and names of this package without the packages that they need: one line names the extra of setup.py."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version

import pytest
from packaging.requirements import Requirement

from nemo_squeezeformer.process import program
from nemo_squeezeformer.process.extras import EXTRAS
from tests.samples.paths import ROOT

# The finder hides installed packages, as if only torch and its dependencies were installed.
HIDE = """
import importlib.util, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
HIDDEN = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Hidden())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in HIDDEN else found(name, *rest)
"""
RUN = HIDE + "import runpy; sys.argv[0] = '-'; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
EVERYTHING = ",".join(EXTRAS)


def line_of(module: str, *arguments: str, hidden: str = EVERYTHING) -> str:
    """Run a program with hidden packages, and return the only line of its errors."""
    command = [sys.executable, "-c", RUN, hidden, module, *arguments]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2 and process.stdout == "", process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    return process.stderr.strip()


@pytest.fixture
def given(tmp_path) -> str:
    """The folder of a wav file, a manifest, and files that look like a model, weights and a graph."""
    import tarfile

    from tests.samples.speech import write_manifest

    write_manifest(tmp_path, utterances=1)
    with tarfile.open(tmp_path / "model.nemo", "w") as archive:
        for name in ("model_config.yaml", "model_weights.ckpt"):
            archive.add(tmp_path / "train.json", name)
    for name in ("weights.h5", "graph.onnx", "sp.model"):
        (tmp_path / name).write_bytes(b"")
    return str(tmp_path)


NEEDS = [  # a command, the extra that it names, and the hidden packages
    ("train --list", "nemo", EVERYTHING),
    ("train squeezeformer_ctc_char --print", "nemo", EVERYTHING),
    ("tokenizer GIVEN/train.json --vocab-size 16 --output GIVEN/new", "nemo", EVERYTHING),
    ("transcribe GIVEN/model.nemo GIVEN/train_0.wav", "nemo", EVERYTHING),
    ("stream GIVEN/model.nemo GIVEN/train_0.wav", "nemo", EVERYTHING),
    ("stream GIVEN/model.nemo -", "nemo", EVERYTHING),
    ("serve GIVEN/model.nemo", "serve", EVERYTHING),
    ("info squeezeformer_ctc_char", "nemo", EVERYTHING),
    ("info GIVEN/model.nemo", "nemo", EVERYTHING),
    ("export GIVEN/model.nemo --output GIVEN/out.onnx", "nemo", EVERYTHING),
    ("export GIVEN/model.nemo --output GIVEN/out --format safetensors", "safetensors", EVERYTHING),
    ("import GIVEN/weights.h5 --tokenizer GIVEN/sp.model --output GIVEN/out.nemo", "nemo", EVERYTHING),
    ("redundancy GIVEN/model.nemo --data GIVEN/train.json --output GIVEN/out.png", "plots", EVERYTHING),
]


QUICK = ("train --list", "transcribe", "serve", "import")  # the other commands load torch first


@pytest.mark.parametrize(
    "command, extra, hidden",
    [
        pytest.param(*need, id=need[0][:24], marks=[] if need[0].startswith(QUICK) else [pytest.mark.slow])
        for need in NEEDS
    ],
)
def test_a_command_without_its_packages_names_the_extra_in_one_line(command, extra, hidden, given):
    arguments = command.replace("GIVEN", given).split()
    line = line_of("nemo_squeezeformer", *arguments, hidden=hidden)
    assert line.startswith("nemo-squeezeformer: error: ")
    assert line.endswith(f"pip install 'nemo-squeezeformer[{extra}]'")


@pytest.mark.parametrize("hidden", ["onnxruntime", EVERYTHING], ids=["without onnxruntime", "without NumPy too"])
def test_the_program_for_exported_models_names_its_extra(hidden, given):
    line = line_of("nemo_squeezeformer.onnx_stream", f"{given}/graph.onnx", f"{given}/train_0.wav", hidden=hidden)
    assert line.startswith("onnx_stream: error: ") and line.endswith("pip install 'nemo-squeezeformer[onnx]'")


NAMES = [
    ("from nemo_squeezeformer import SqueezeformerEncoder", "nemo"),
    ("from nemo_squeezeformer import OriginalMelSpectrogramPreprocessor", "nemo"),
    ("import nemo_squeezeformer; nemo_squeezeformer.SqueezeformerEncoderAdapter", "nemo"),
    ("from nemo_squeezeformer import plain; plain.load('folder')", "safetensors"),
    ("from nemo_squeezeformer.deployment import weights", "safetensors"),
    ("from nemo_squeezeformer.checkpoints.tensorflow import read; read('weights.h5')", "tensorflow"),
]


@pytest.mark.parametrize(
    "statement, extra",
    [
        pytest.param(*name, id=name[0].split()[-1], marks=[pytest.mark.slow] if 0 < number != 3 else [])
        for number, name in enumerate(NAMES)
    ],
)
def test_a_name_without_its_packages_names_the_extra_in_the_error(statement, extra):
    command = [sys.executable, "-c", HIDE + statement, EVERYTHING]
    errors = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr
    last = errors.strip().splitlines()[-1]
    assert re.match(r"(ModuleNotFoundError|\S+UserError): ", last), errors
    assert last.endswith(f"pip install 'nemo-squeezeformer[{extra}]'")


@pytest.mark.slow
def test_the_core_and_the_help_need_no_extra():
    statement = "import nemo_squeezeformer.core; from nemo_squeezeformer.__main__ import build_parser; build_parser()"
    subprocess.run([sys.executable, "-c", HIDE + statement, EVERYTHING], cwd=ROOT, check=True)


def test_a_package_that_nemo_imports_is_part_of_the_extra_nemo(capsys):
    def command() -> int:
        exec("import surely_missing", {"__name__": "nemo.collections.asr"})
        return 0

    assert program.run("nemo-squeezeformer", command) == 2
    assert "the module surely_missing is not installed" in capsys.readouterr().err


def imported_packages() -> set[str]:
    """Return the packages that this package imports, also inside of functions."""
    names: set[str] = set()
    for file in (ROOT / "nemo_squeezeformer").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"nemo_squeezeformer", "torch"}


def test_the_table_of_extras_lists_all_packages_that_this_package_imports():
    assert imported_packages() == set(EXTRAS)


@pytest.mark.skipif(version("nemo_toolkit") < "3", reason="NeMo 2.7.3 does not require all of its packages")
def test_every_package_of_the_table_is_installed_by_its_extra():
    """The extra itself requires the package, or NeMo does for the extra ``nemo``."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    (table,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(setup))
        if isinstance(node, ast.keyword) and node.arg == "extras_require"
    )
    distributions = packages_distributions()
    for module, extra in EXTRAS.items():
        installed = {name for requirement in table[extra] for name in reached(Requirement(requirement))}
        provided = {normal(name) for name in distributions.get(module, [module])}
        assert provided & installed, f"{module} is not installed by the extra {extra}"


@functools.cache
def reached(wanted: Requirement) -> frozenset[str]:
    """Return the names of all distributions that a requirement installs."""
    seen: set[str] = set()
    waiting = [wanted]
    while waiting:
        requirement = waiting.pop()
        seen.add(normal(requirement.name))
        waiting += [needed for needed in needed_by(requirement) if normal(needed.name) not in seen]
    return frozenset(seen)


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def needed_by(requirement: Requirement) -> Iterator[Requirement]:
    try:
        texts = requires(requirement.name) or []
    except PackageNotFoundError:  # this environment does not have the distribution
        return
    for text in texts:
        needed = Requirement(text)
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield needed
