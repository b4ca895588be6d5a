"""Tests of the structure of the package.

A room is a subpackage with a fixed place in the import order. A room imports only from itself and from lower rooms.
No modules import each other in a circle. Old names are still available.
"""

from __future__ import annotations

import ast
import importlib
import pickle
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_squeezeformer.integration.old_names import MOVED
from tests.samples.paths import ROOT

PACKAGE = ROOT / "nemo_squeezeformer"

# From the lowest room to the highest. A module belongs to the room with the longest name that starts the module's name.
ROOMS = (
    "errors",
    "core.dispatch",
    "core.frames",
    "core.attention",
    "core",
    "core.cpu",
    "core.kernels",
    "core.inference",
    "core.__init__",
    "process",
    "files",
    "integration",
    "__init__",
    "training",
    "transcription",
    "serving",
    "deployment",
    "analysis",
    "checkpoints",
    "commands",
    "__main__",
)
ABOVE_CORE = ROOMS[ROOMS.index("core.__init__") + 1 :]


def modules_of(package: Path) -> dict[str, Path]:
    """Return the files of a package by module name. The module of a folder has a name that ends with ``__init__``."""
    files = {".".join(file.relative_to(package).with_suffix("").parts): file for file in package.rglob("*.py")}
    return {name: file for name, file in files.items() if name.split(".")[0] != "conf"}


def imports_of(package: Path) -> dict[str, set[str]]:
    """Return the imported modules of the package for each module. Imports in functions and for types count too."""
    modules = modules_of(package)
    return {name: set(imports_in(name, file, package.name, set(modules))) for name, file in modules.items()}


def imports_in(name: str, file: Path, package: str, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield found(alias.name.split(".")[1:], modules)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                module = name.split(".")[: -node.level] + module
            elif module[:1] == [package]:
                module = module[1:]
            else:
                continue
            for alias in node.names:
                yield found([*module, alias.name], modules)


def found(path: list[str], modules: set[str]) -> str:
    """Return the module that ``path`` names, or the module from which ``path`` imports a name."""
    for parts in (path, path[:-1]):
        for name in (".".join(parts), ".".join([*parts, "__init__"])):
            if name in modules:
                return name
    raise AssertionError(f"{'.'.join(path)} is not a module of the package")


def room_of(module: str) -> str:
    """Return the room of a module. The modules ``core.__init__`` and ``__init__`` are rooms themselves."""
    names = [module] if module in ROOMS else []
    return max(names + [room for room in ROOMS if f"{module}.".startswith(f"{room}.")], key=len)


def upward(imports: dict[str, set[str]]) -> list[str]:
    """Return the imports from a room above the room of the importing module."""
    floor = {module: ROOMS.index(room_of(module)) for module in imports}
    return [f"{a} -> {b}" for a, there in sorted(imports.items()) for b in sorted(there) if floor[b] > floor[a]]


def reached_from(module: str, imports: dict[str, set[str]]) -> set[str]:
    """Return all modules that a module imports, directly or through other modules."""
    seen: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            waiting += imports[at]
    return seen


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Return the modules that import themselves through other modules."""
    return sorted(module for module in imports if module in reached_from(module, imports))


def test_no_module_imports_from_a_room_above_its_own():
    assert upward(imports_of(PACKAGE)) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circles(imports_of(PACKAGE)) == []


@pytest.fixture
def planted(tmp_path) -> Path:
    """Return a package with a few rooms and without wrong imports."""
    for name, text in {
        "__init__": "",
        "core/__init__": "from . import kernels\nfrom .encoder import Encoder\n",
        "core/encoder": "from .frames.masks import Frames\nclass Encoder: ...\n",
        "core/frames/__init__": "from .masks import Frames\n",
        "core/frames/masks": "import torch\nclass Frames: ...\n",
        "commands/train": "import nemo_squeezeformer\nfrom nemo_squeezeformer.training import recipes\n",
        "core/kernels/__init__": "from nemo_squeezeformer.core.encoder import Encoder\n",
        "training/recipes": "from nemo_squeezeformer import core\nfrom nemo_squeezeformer.core.frames import Frames\n",
    }.items():
        file = tmp_path / "nemo_squeezeformer" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "nemo_squeezeformer"


def test_an_upward_import_is_found(planted):
    assert upward(imports_of(planted)) == [] and circles(imports_of(planted)) == []
    for file, line, expected in (
        ("core/encoder.py", "from .kernels import Encoder", "core.encoder -> core.kernels.__init__"),
        ("core/frames/masks.py", "from ..encoder import Encoder", "core.frames.masks -> core.encoder"),
        ("core/encoder.py", "def f():\n    from nemo_squeezeformer.training import recipes", "training.recipes"),
        ("training/recipes.py", "from nemo_squeezeformer.commands import train", "training.recipes -> commands.train"),
    ):
        before = (planted / file).read_text()
        (planted / file).write_text(f"{before}{line}\n")
        (wrong,) = upward(imports_of(planted))
        assert expected in wrong
        (planted / file).write_text(before)


def test_a_circle_of_imports_is_found(planted):
    (planted / "training" / "schedule.py").write_text("from nemo_squeezeformer.training.recipes import plan\n")
    assert circles(imports_of(planted)) == []
    plan = "def plan():\n    from nemo_squeezeformer.training import schedule\n"
    (planted / "training" / "recipes.py").write_text(plan)
    assert upward(imports_of(planted)) == []
    assert circles(imports_of(planted)) == ["training.recipes", "training.schedule"]


def imported_at_the_top(file: Path) -> set[str]:
    """Return the packages that a module imports outside of functions."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_integration_imports_nemo_at_the_top_and_core_imports_only_torch():
    with_nemo = {"nemo", "lightning", "omegaconf", "hydra"}
    for name, file in modules_of(PACKAGE).items():
        at_top = imported_at_the_top(file)
        if room_of(name) != "integration":
            assert not at_top & with_nemo, f"{name} imports {at_top & with_nemo}"
        if room_of(name) not in ABOVE_CORE:
            others = at_top - set(sys.stdlib_module_names) - {"torch"}
            assert not others, f"{name} imports {others}"


def test_a_folder_has_at_most_16_files():
    files: dict[Path, list[str]] = defaultdict(list)
    for file in modules_of(PACKAGE).values():
        files[file.parent].append(file.name)
    for folder, names in files.items():
        assert len(names) <= 16, f"{folder.relative_to(ROOT)} has {len(names)} files: {sorted(names)}"


def test_files_with_equal_names_import_each_other():
    """For example, ``integration/encoder.py`` extends the encoder of the core and imports it."""
    imports = imports_of(PACKAGE)
    named = defaultdict(list)
    for module in imports:
        name = module.rpartition(".")[2]
        if name not in ("__init__", "__main__"):
            named[name].append(module)
    for modules in named.values():
        for lower, upper in zip(modules, modules[1:]):
            extends = lower in reached_from(upper, imports) or upper in reached_from(lower, imports)
            assert extends, f"{lower} and {upper} have the same file name, but neither imports the other"


OLD_NAMES = {  # names in recipes, saved models, pickled objects, pages and programs of users
    "nemo_squeezeformer": ["SqueezeformerEncoder", "SqueezeformerEncoderAdapter", "OriginalMelSpectrogramPreprocessor"],
    "nemo_squeezeformer.core": ["SqueezeformerEncoder", "EncoderState"],
    "nemo_squeezeformer.core.attention": ["MultiHeadAttention", "RelPositionAttention"],
    "nemo_squeezeformer.core.attention_choice": ["ByUse"],
    "nemo_squeezeformer.core.attention_kernels": ["PlainKernel", "SDPA"],
    "nemo_squeezeformer.core.attention_settings": ["AttentionSettings"],
    "nemo_squeezeformer.core.conformer": ["ConformerLayer"],
    "nemo_squeezeformer.core.context": ["Context", "ContextSettings"],
    "nemo_squeezeformer.core.convolution": [
        "ConvolutionModule",
        "ChunkedConvolutionModule",
        "ChannelLayerNorm",
        "InstanceNorm",
        "FusedBatchNorm",
    ],
    "nemo_squeezeformer.core.dropout": ["Dropout"],
    "nemo_squeezeformer.core.encoder": ["SqueezeformerEncoder"],
    "nemo_squeezeformer.core.feed_forward": ["FeedForward", "ScaleBias"],
    "nemo_squeezeformer.core.frames": ["Frames"],
    "nemo_squeezeformer.core.layer": ["SqueezeformerLayer"],
    "nemo_squeezeformer.core.layer_call": ["plain", "checkpointed", "compiled", "compiled_and_checkpointed"],
    "nemo_squeezeformer.core.local_attention": ["LocalAttention"],
    "nemo_squeezeformer.core.mf_cf": ["MFCFLayer", "GatedMFCFLayer"],
    "nemo_squeezeformer.core.optimized.fast_linear": ["FastLinear", "Rows"],
    "nemo_squeezeformer.core.optimized.fused_attention": [
        "FusedAttention",
        "FusedRelPositionAttention",
        "FusedLocalAttention",
    ],
    "nemo_squeezeformer.core.optimized.guard": ["refuse_training", "refuse_saving", "refuse_loading"],
    "nemo_squeezeformer.core.optimized.head_blocks": ["HeadBlocks"],
    "nemo_squeezeformer.core.optimized.kept_positions": ["EncodingTable", "KeptLinear"],
    "nemo_squeezeformer.core.optimized.projections": ["FastPointwise", "TurnedProjection"],
    "nemo_squeezeformer.core.original_features": ["OriginalMelSpectrogram"],
    "nemo_squeezeformer.core.positions": ["RelativePositions", "LocalPositions", "AbsolutePositions"],
    "nemo_squeezeformer.core.query_blocks": ["QueryBlocks"],
    "nemo_squeezeformer.core.recomputed_attention": ["RecomputedAttention"],
    "nemo_squeezeformer.core.streaming": ["EncoderState", "LayerState", "ReductionState"],
    "nemo_squeezeformer.core.subsampling": [
        "Margins",
        "StridingSubsampling",
        "DepthwiseStridingSubsampling",
        "StackingSubsampling",
        "NoSubsampling",
    ],
    "nemo_squeezeformer.core.temporal_unet": ["Span", "TimeReduction"],
    "nemo_squeezeformer.core.variant": ["Variant"],
    "nemo_squeezeformer.core.window_blocks": ["WindowsInTurn"],
    "nemo_squeezeformer.core.windows": ["AllWindows"],
    "nemo_squeezeformer.caches": ["Caches"],
    "nemo_squeezeformer.encoder": ["SqueezeformerEncoder"],
    "nemo_squeezeformer.layer": ["SqueezeformerLayer", "ConformerLayer", "MFCFLayer", "GatedMFCFLayer"],
    "nemo_squeezeformer.legacy": ["SqueezeformerEncoder", "SqueezeformerEncoderAdapter"],
    "nemo_squeezeformer.onnx_stream": [],
    "nemo_squeezeformer.original_features": ["OriginalMelSpectrogramPreprocessor"],
    "nemo_squeezeformer.plain": ["load", "save"],
    "nemo_squeezeformer.redundancy": ["measure"],
    "nemo_squeezeformer.resume": ["ExactResume"],
    "nemo_squeezeformer.sizes": ["sizes", "PUBLISHED"],
}


@pytest.mark.parametrize("module", OLD_NAMES)
def test_old_names_can_still_be_imported(module):
    for name in OLD_NAMES[module]:
        found = getattr(importlib.import_module(module), name)
        path = f"{found.__module__}.{found.__qualname__}" if hasattr(found, "__qualname__") else ""
        if path.startswith("nemo_squeezeformer.") and isinstance(found, type):  # pickle finds the class
            assert pickle.loads(f"c{module}\n{name}\n.".encode()) is found


def test_every_old_module_can_be_imported():
    untried = {f"nemo_squeezeformer.{name}" for name in MOVED if not name.endswith("__main__")} - set(OLD_NAMES)
    for module in untried:
        importlib.import_module(module)
        assert importlib.import_module(f"nemo_squeezeformer.{MOVED[module.removeprefix('nemo_squeezeformer.')][0]}")
    with pytest.raises(AttributeError, match=r"nemo_squeezeformer\.resume.*no attribute 'Nothing'"):
        importlib.import_module("nemo_squeezeformer.resume").Nothing  # noqa: B018


def test_the_old_command_for_exported_models_still_works():
    run = [sys.executable, "-m", "nemo_squeezeformer.onnx_stream", "--help"]
    help_text = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert help_text.startswith("usage: python -m nemo_squeezeformer.onnx_stream")


def test_the_page_how_it_works_lists_the_rooms_in_their_order_and_names_existing_files():
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `([a-z_/]+)/` \|", page, flags=re.MULTILINE)
    listed = [room.replace("/", ".") for room in rooms]
    ordered = [room for room in reversed(ROOMS) if room in set(listed)]
    outer = [room for room in ordered if "." not in room]
    assert listed == [*outer, *(room for room in ordered if room.split(".")[0] == "core")]
    assert set(ROOMS) - set(listed) == {"errors", "core.__init__", "__init__", "__main__"}
    table = page.split("| module | shapes of input and output | file in")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z_/]+\.py)`", table)
    assert len(named) > 8
    for file in named:
        assert (PACKAGE / "core" / file).is_file(), file


def test_the_import_of_the_package_does_not_load_torch_or_nemo():
    program = "import sys; before = set(sys.modules); import nemo_squeezeformer; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    names = set(loaded.stdout.split())
    assert {"nemo_squeezeformer", "nemo_squeezeformer.integration.register"} <= names
    assert sum(name.startswith("nemo_squeezeformer") for name in names) <= 4
    assert not {name.partition(".")[0] for name in names} & {"torch", "nemo", "omegaconf", "hydra", "yaml", "tempfile"}
