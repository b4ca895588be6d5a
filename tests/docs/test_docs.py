"""Tests that run the commands of the README and of docs, page by page from top to bottom."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import nemo
import pytest
import yaml
from nemo.core.classes import Serialization, common
from nemo_squeezeformer.onnx_stream.__main__ import main as onnx_stream
from omegaconf import OmegaConf

from nemo_squeezeformer.__main__ import build_parser, main
from nemo_squeezeformer.training.recipes import compose, recipes
from tests.samples.model_types import model_class
from tests.samples.pages import TYPED, Block, blocks, name, prose, sources
from tests.samples.paths import ROOT

QUICK = shlex.split(
    "model.encoder.d_model=16 model.encoder.n_layers=2 model.encoder.time_reduce_idx=0 model.train_ds.num_workers=0 "
    "model.validation_ds.num_workers=0 trainer.accelerator=cpu trainer.devices=1 trainer.max_epochs=1 "
    "+trainer.limit_train_batches=2 trainer.enable_progress_bar=false exp_manager.exp_dir=experiments "
    "exp_manager.create_tensorboard_logger=false"
)
TRANSDUCER = ["model.loss.loss_name=pytorch"]  # the same loss, without the compilation of NeMo's default loss
# The reasons after ```bash not-run. The command downloads packages or models, runs a script that NeMo's package does
# not contain, needs recordings that are missing, needs a microphone or a GPU, or takes minutes or hours.
NOT_RUN = {"network", "NeMo's scripts", "data", "microphone", "GPU", "hours"}
FILE = re.compile(r'python title="(\w+\.py)"')  # the kind of a block that the reader saves as a file
OTHER_PROGRAMS = {
    "pip",
    "arecord",
    "for",
    "done",
    "export",
    ".venv/bin/pip",
    ".venv/bin/python",
    ".ci/run",
    "srun",
    "torchrun",
}
SLOW = {  # they train or export models
    f"docs/{page}.md"
    for page in (
        "quick-start",
        "own-data",
        "train",
        "check",
        "fine-tune",
        "decode",
        "deploy",
        "runtimes",
        "stream",
        "released-checkpoints",
    )
}
EXTRAS = {
    "docs/released-checkpoints.md": "h5py",
    "docs/deploy.md": "onnxruntime",
    "docs/fine-tune.md": "peft",
    "docs/how-it-works.md": "matplotlib",
    "docs/stream.md": "onnxruntime",
    "docs/transcribe.md": "silero_vad",
}


def runs(block: Block) -> bool:
    return block.kind in ("bash", "python") or FILE.fullmatch(block.kind) is not None


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] if name(page) in SLOW else [])
        for page in TYPED
        if any(runs(block) for block in blocks(page))
    ],
)
def test_all_commands_of_a_page_run(page, folder, monkeypatch):
    if name(page) in EXTRAS:
        pytest.importorskip(EXTRAS[name(page)])
    names: dict[str, object] = {}
    monkeypatch.syspath_prepend(folder)
    for block in filter(runs, blocks(page)):
        if file := FILE.fullmatch(block.kind):
            (folder / file[1]).write_text(block.text, encoding="utf-8")
            monkeypatch.delitem(sys.modules, file[1].removesuffix(".py"), raising=False)
            continue
        if block.kind == "python":
            exec(compile(block.text, str(page), "exec"), names)
            continue
        for command in block.commands:
            type_in(shlex.split(command), folder)


def type_in(command: list[str], folder: Path) -> None:
    if command[:3] == ["python", "-m", "nemo_squeezeformer.onnx_stream"]:
        assert onnx_stream(command[3:]) == 0, command
        return
    if command[0] == "python" and (folder / command[1]).is_file():
        program, arguments = partial(run_file, folder / command[1]), command[2:]
    else:
        assert command[0] == "nemo-squeezeformer", command
        program, arguments = main, command[1:]
    if arguments[0] == "train" and not {"--list", "--print"} & set(arguments):
        arguments += QUICK + (TRANSDUCER if "transducer" in arguments[1] else [])
    if arguments[0] == "tokenizer":
        shutil.rmtree(folder / arguments[arguments.index("--output") + 1], ignore_errors=True)
    assert program(arguments) == 0, command
    for trained in (folder / "experiments").rglob("*.nemo"):
        shutil.copy(trained, folder / "model.nemo")


def run_file(program: Path, arguments: list[str]) -> object:
    """Run a program that a page saved, and return its exit status. NeMo's list of prefixes does not change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(program), *arguments])
        patch.setattr(common, "ALLOWED_TARGET_PREFIXES", [*common.ALLOWED_TARGET_PREFIXES])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(program), run_name="__main__")
    return left.value.code


@pytest.mark.parametrize("page", TYPED, ids=name)
def test_every_block_runs_or_has_a_reason_why_it_does_not(page):
    for block in blocks(page):
        kind, _, reason = block.kind.partition(" not-run: ")
        if kind == "text":
            assert not reason
            first = block.text.split()[0]
            assert first not in {"nemo-squeezeformer", "python", "pip", "make", "import", "from", "$"}, block.text
        else:
            assert kind in ("bash", "python") or FILE.fullmatch(kind), f"unknown kind of block: {block.kind!r}"
            assert " not-run: " not in block.kind or reason in NOT_RUN, block.kind
    indented = re.findall(r"(?:^|\n\n)( {4}.*)", prose(page))
    assert not indented, f"indented code blocks have no kind, use fenced code blocks: {indented}"


@pytest.mark.parametrize("page", TYPED, ids=name)
def test_blocks_that_do_not_run_name_existing_programs_and_options(page):
    for block in blocks(page):
        if block.kind.startswith("python not-run: "):
            compile(block.text, str(page), "exec")
        elif block.kind.startswith("bash not-run: "):
            for command in block.commands:
                for part in re.split(r"[|;]|\bdo\b|>\s*\S+", command):
                    check_program(part.strip())


def check_program(command: str) -> None:
    words = shlex.split(re.sub(r"^(export )?([A-Z_]+=\S+( |$))+", "", command))
    if words[:1] == ["nemo-squeezeformer"]:
        args = build_parser().parse_known_args(words[1:])[0]  # raises SystemExit for unknown arguments
        if words[1] == "train":
            assert args.start or args.recipe in recipes(), command
    elif words[:1] == ["make"]:
        targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word][0] in targets, command
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        assert sources(words[2]), f"the program does not exist: {command}"
        for option in [word for word in words[3:] if word.startswith("--")]:
            defined = [*sources(words[2]), ROOT / "benchmarks" / "measuring" / "command_line.py"]
            assert any(f'"{option}"' in source.read_text() for source in defined), f"{option}: {command}"
    elif words[:1] == ["python"] and words[1].startswith("examples/"):
        page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
        recipe = next(word for word in words if word.startswith("--config-name=")).partition("=")[2]
        assert re.search(rf"^\| `{recipe}` \|.*`{words[1].removeprefix('examples/')}`", page, flags=re.MULTILINE)
    else:
        assert not words or words[0] in OTHER_PROGRAMS, command


def test_wrong_blocks_and_wrong_commands_are_found(tmp_path):
    for wrong in (
        "```\nx\n```\n",
        "```bash not-run: laziness\nx\n```\n",
        "text\n\n    pip install x\n",
        "```text\npip\n```\n",
        '```python title="../page.py"\nx\n```\n',
    ):
        page = tmp_path / "page.md"
        page.write_text(wrong)
        with pytest.raises(AssertionError):
            test_every_block_runs_or_has_a_reason_why_it_does_not(page)
    wrong_benchmarks = (
        "python -m benchmarks.speed --nothing",
        "python -m benchmarks.nothing",
        "python benchmarks/speed.py",
    )
    for wrong in ("nemo-squeezeformer export --nothing", "make nothing", *wrong_benchmarks, "ls"):
        with pytest.raises((AssertionError, SystemExit)):
            check_program(wrong)


def target(recipe: str) -> str:
    """Return the ``model_target`` of a recipe. If it has no ``model_target``, use its first default recipe."""
    written = yaml.safe_load((ROOT / "conf" / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return written.get("model_target") or target(written["defaults"][0])


def test_the_table_of_recipes_agrees_with_the_recipes_and_with_this_nemo():
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    rows = [row for row in rows if row and row[0].startswith("squeezeformer_")]
    assert sorted(row[0] for row in rows) == recipes()
    column = 1 if nemo.__version__.startswith("2.") else 0
    for recipe, model, _, *tested in rows:
        assert target(recipe).split(".")[-1] == model
        assert tested[column] == ("yes" if model_class(target(recipe)) else "-"), recipe
    assert compose("squeezeformer_ctc_char_small").model_target == target("squeezeformer_ctc_char_small")


def test_the_page_for_nemo_users_quotes_two_errors_of_nemo():
    text = (ROOT / "docs" / "coming-from-nemo.md").read_text(encoding="utf-8")
    assert "TypeError: Can't instantiate abstract class ASRModel" in text
    assert "Instantiation of unsafe target 'nemo_squeezeformer.SqueezeformerEncoder' is blocked" in text


@pytest.mark.skipif(nemo.__version__.startswith("2."), reason="the page quotes the error of NeMo 3")
def test_the_page_for_contributors_quotes_the_error_of_a_class_that_nemo_does_not_allow():
    with pytest.raises(ValueError, match="'my_encoder.MyEncoder' is blocked") as error:
        Serialization.from_config_dict(OmegaConf.create({"_target_": "my_encoder.MyEncoder"}))
    page = " ".join((ROOT / "docs" / "contribute.md").read_text(encoding="utf-8").split())
    assert f"{type(error.value).__module__}.{type(error.value).__name__}: {error.value}" in page
