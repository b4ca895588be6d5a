"""What README and docs tell people to type, typed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import nemo
import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.recipes import compose, recipes
from tests.model_types import model_class, model_type

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = shlex.split(
    "model.encoder.d_model=16 model.encoder.n_layers=2 model.encoder.time_reduce_idx=0 model.train_ds.num_workers=0 "
    "model.validation_ds.num_workers=0 trainer.accelerator=cpu trainer.devices=1 trainer.max_epochs=1 "
    "trainer.enable_progress_bar=false exp_manager.exp_dir=experiments exp_manager.create_tensorboard_logger=false"
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's: manifests train.json and dev.json, recordings/, and a model.nemo once there is one."""
    rng = np.random.default_rng(0)
    (tmp_path / "recordings").mkdir()
    for name, utterances in {"train": 80, "dev": 2}.items():
        rows = []
        for i in range(utterances):
            audio = tmp_path / "recordings" / f"{name}{i}.wav"
            soundfile.write(audio, rng.normal(0, 0.1, 16000), 16000)
            text = " ".join("".join(rng.choice(list("abcdefghijklmno"), 5)) for _ in range(2))
            rows.append(json.dumps({"audio_filepath": f"recordings/{audio.name}", "duration": 1.0, "text": text}))
        (tmp_path / f"{name}.json").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_do_what_the_page_says(page, folder):
    commands = [line for block in blocks(page, "bash") for line in block.replace("\\\n", "").splitlines() if line]
    if any("tokenizer.dir=tokenizer" in command for command in commands):
        commands.insert(0, "nemo-squeezeformer tokenizer train.json --vocab-size 128 --output tokenizer")
    for command in dict.fromkeys(commands):
        program, *arguments = shlex.split(command)
        assert program == "nemo-squeezeformer", command
        assert main([*arguments, *QUICK] if arguments[0] == "train" else arguments) == 0, command
        for trained in (folder / "experiments").rglob("*.nemo"):
            shutil.copy(trained, folder / "model.nemo")
    if page.name == "README.md":
        assert len((folder / "transcripts.jsonl").read_text().splitlines()) == 82


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_runs(page, folder):
    for block in blocks(page, "python"):
        for name in {"old.nemo", "model.nemo"} & set(re.findall(r"\w+\.nemo", block)):
            assert main(shlex.split(SMALLEST) + QUICK) == 0
            shutil.copy(next((folder / "experiments").rglob("*.nemo")), folder / name)
        exec(compile(block, str(page), "exec"), {})


SMALLEST = (
    "train squeezeformer_ctc_char size=tiny model.train_ds.manifest_filepath=train.json "
    "model.validation_ds.manifest_filepath=dev.json"
)


def test_the_table_of_recipes_is_that_of_the_recipes_and_of_this_nemo():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    rows = [row for row in rows if row and row[0].startswith("squeezeformer_")]
    assert sorted(row[0] for row in rows) == recipes()
    column = 1 if nemo.__version__.startswith("2.") else 0
    for name, model, _, *tested in rows:
        target = compose(name).model_target
        assert target.split(".")[-1] == model
        expected = "not trained" if model_type(name, target).gpu_only else "yes"
        assert tested[column] == (expected if model_class(target) else "-"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_two_errors_of_nemo_are_quoted_with_their_cure():
    text = (ROOT / "docs" / "coming-from-nemo.md").read_text(encoding="utf-8")
    assert "TypeError: Can't instantiate abstract class ASRModel" in text
    assert "Instantiation of unsafe target 'nemo_squeezeformer.SqueezeformerEncoder' is blocked" in text
