"""Tests that a run that was killed resumes from its newest complete checkpoint, and ends as a run without a stop."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration.resuming.whole_checkpoints import MARKER, newest
from tests.samples import kills
from tests.samples.asr_models import asr_model

NAME = "Squeezeformer-CTC-Char"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[str], dict[str, Any]]:
    """A run that is not killed: its folder, its settings and its last checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    given = kills.settings(folder)
    assert kills.train(folder, given) == 0, (folder / "log.txt").read_text()
    checkpoint = kills.last_checkpoint(folder)
    assert checkpoint["global_step"] == 8
    shutil.move(folder / "exp", folder / "whole")
    return folder, given, checkpoint


def resumed_states(whole, moments, step: int = 3) -> list[str]:
    """Kill the run at each of the moments, resume the run each time, and return a line for each difference."""
    folder, given, checkpoint = whole
    for old in ("exp", "before", "states"):
        shutil.rmtree(folder / old, ignore_errors=True)
    assert kills.train(folder, given, kills.KilledForks(folder, step, moments)) == 0, (folder / "log.txt").read_text()
    found, states = [], sorted((folder / "states").iterdir(), key=lambda path: int(path.name))
    for state in states:
        shutil.rmtree(folder / "exp", ignore_errors=True)
        shutil.move(state, folder / "exp")
        status = kills.train(folder, given)
        log = (folder / "log.txt").read_text()
        if status:
            found.append(f"moment {state.name}: status {status}: {log[-2000:]}")
        elif others := kills.differences(checkpoint, kills.last_checkpoint(folder)):
            found.append(f"moment {state.name}: {others[:5]} differ")
    return [*found, *([] if len(states) > len(moments) // 2 else ["most runs have ended before the kill"])]


def test_a_run_killed_at_an_operation_of_a_save_ends_as_a_run_without_a_stop(whole):
    moments = [kills.at_change(number, whole[0]) for number in (40,)]
    assert resumed_states(whole, moments) == []


@pytest.mark.slow
def test_a_run_killed_at_any_operation_of_a_save_ends_as_a_run_without_a_stop(whole):
    moments = [kills.at_change(number, whole[0]) for number in range(30)]
    assert resumed_states(whole, moments) == []


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_ends_as_a_run_without_a_stop(whole):
    draw = random.Random(0)
    assert resumed_states(whole, [kills.after(draw.uniform(0.01, 0.4)) for _ in range(10)], step=1) == []


def write(folder: Path, name: str, step: int, marked: bool = False, **more: Any) -> Path:
    """Write a checkpoint as Lightning does, and the marker that NeMo sets while it saves or deletes a file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}, "global_step": step, **more}, path)
    if marked:
        (folder / f"{name}{MARKER}").touch()
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "checkpoints"


def aside(folder: Path) -> set[str]:
    return names(folder.with_name(f"checkpoints{MARKER}"))


def test_a_checkpoint_cut_at_any_length_is_moved_aside(folder):
    good = write(folder, "a-step=2", 2)
    data = write(folder, "a-step=4-last", 4, marked=True).read_bytes()
    for length in [0, 1, 100, *range(500, len(data), 700), len(data) - 1]:
        last = folder / "a-step=4-last.ckpt"
        last.write_bytes(data[:length])
        assert newest(folder, "a") == good
        assert names(folder) == {good.name}
    assert len(aside(folder)) > 8  # no file is overwritten


def test_a_checkpoint_with_a_changed_byte_is_moved_aside(folder):
    good = write(folder, "a-step=2", 2)
    last = write(folder, "a-step=4-last", 4)
    data = bytearray(last.read_bytes())
    place = data.index(torch.arange(1000.0).numpy().tobytes())
    data[place + 2000] ^= 1
    last.write_bytes(data)
    assert newest(folder, "a") == good
    assert aside(folder) == {last.name}


def test_a_complete_checkpoint_is_used_although_nemo_has_marked_it(folder):
    write(folder, "a-step=2", 2)
    last = write(folder, "a-step=4-last", 4, marked=True)
    assert newest(folder, "a") == last
    assert names(folder) == {"a-step=2.ckpt", last.name} and aside(folder) == set()


def test_the_newer_of_two_last_checkpoints_is_used(folder):
    write(folder, "a-step=9-last", 9)
    last = write(folder, "a-step=10-last", 10)
    assert newest(folder, "a") == last
    assert aside(folder) == {"a-step=9-last.ckpt"}


def test_a_checkpoint_without_its_averages_is_not_used_for_a_run_with_averages(folder):
    good, average = write(folder, "a-step=2", 2), write(folder, "a-step=2-EMA", 2)
    write(folder, "a-step=4-last", 4, marked=True)
    (folder / "a-step=4-last-EMA.ckpt").write_bytes(average.read_bytes()[:500])
    assert newest(folder, "a", averages=True) == good
    assert names(folder) == {good.name, average.name}
    assert aside(folder) == {"a-step=4-last.ckpt", "a-step=4-last-EMA.ckpt"}


def test_a_run_without_averages_is_not_continued_with_averages(folder):
    good = write(folder, "a-step=2", 2)
    with pytest.raises(
        UserError, match=f"{good}: the run was trained without moving averages .*exp_manager.ema.enable"
    ):
        newest(folder, "a", averages=True)
    assert names(folder) == {good.name} and aside(folder) == set()


def test_a_checkpoint_of_an_infinite_loss_does_not_stop_nemo(folder):
    write(folder, "a--val_loss=inf-epoch=0-step=2", 2)
    last = write(folder, "a--val_loss=inf-epoch=0-step=4-last", 4)
    assert newest(folder, "a") == last
    assert aside(folder) == {"a--val_loss=inf-epoch=0-step=2.ckpt"}


def test_a_folder_without_a_complete_checkpoint_starts_again_and_keeps_the_files(folder):
    assert newest(folder, "a") is None
    path = write(folder, "a-step=2-last", 2, marked=True)
    path.write_bytes(path.read_bytes()[:-20])
    assert newest(folder, "a") is None
    assert names(folder) == set() and aside(folder) == {path.name}


def test_an_interrupted_nemo_file_is_replaced_by_its_backup(folder):
    last = write(folder, "a-step=4-last", 4)
    asr_model().save_to(str(folder / "a-v1.nemo"))
    data = (folder / "a-v1.nemo").read_bytes()
    for length in (0, 1000, len(data) // 2, len(data) * 9 // 10):
        (folder / "a.nemo").write_bytes(data[:length])
        assert newest(folder, "a") == last
        assert (folder / "a.nemo").read_bytes() == data and names(folder) == {last.name, "a.nemo"}
        (folder / "a.nemo").rename(folder / "a-v1.nemo")
    shutil.copy(folder / "a-v1.nemo", folder / "a.nemo")
    newest(folder, "a")
    assert names(folder) == {last.name, "a.nemo"} and "a-v1.nemo" in aside(folder)


def test_a_checkpoint_with_an_object_is_refused_and_stays(folder):
    last = write(folder, "a-step=4-last", 4, other=Callback())
    with pytest.raises(UserError, match="can run code"):
        newest(folder, "a")
    assert names(folder) == {last.name}


def test_a_process_that_must_not_move_files_waits_for_the_main_process(folder):
    last = write(folder, "a-step=4-last", 4)
    assert newest(folder, "a", moves=False) == last


def test_checkpoints_that_are_folders_are_left_to_nemo(folder):
    write(folder, "a-step=4-last", 4, marked=True).write_bytes(b"PK")
    (folder / "a-step=2-last").mkdir()
    assert newest(folder, "a") is None
    assert len(names(folder)) == 3
