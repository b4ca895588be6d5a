"""Tests of outputs: files and folders appear complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import (
    all_written_whole,
    refuse_existing,
    require_folder,
    strangers,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_replaces_another_file_only_when_it_is_complete(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with written_whole(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["out.txt"]


def test_a_folder_replaces_another_folder_with_its_contents(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.txt").touch()
    with written_whole(folder) as new:
        new.mkdir()
        (new / "new.txt").touch()
        assert names(folder) == ["old.txt"]
    assert names(folder) == ["new.txt"] and names(tmp_path) == ["out"]


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_failure_does_not_change_an_existing_file(tmp_path, before, stop):
    path = tmp_path / "out.txt"
    if before:
        path.write_text(before)
    with pytest.raises(stop), written_whole(path) as new:
        new.write_text("half")
        raise stop
    assert names(tmp_path) == (["out.txt"] if before else [])
    assert not before or path.read_text() == before


def test_a_failed_rename_keeps_the_existing_folder(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.txt").touch()

    def refused(*_):
        raise OSError("no such luck")

    with pytest.raises(OSError, match="luck"), written_whole(folder) as new:
        new.mkdir()
        monkeypatch.setattr(os, "replace", refused)
    assert names(tmp_path) == ["out"] and names(folder) == ["old.txt"]


@pytest.mark.parametrize("make, there", [(Path.mkdir, Path.touch), (Path.touch, Path.mkdir)])
def test_a_folder_never_replaces_a_file_and_a_file_never_replaces_a_folder(tmp_path, make, there):
    path = tmp_path / "out"
    there(path)
    kind = path.is_dir()
    with pytest.raises(OSError), written_whole(path) as new:
        make(new)
    assert names(tmp_path) == ["out"] and path.is_dir() == kind


def test_several_files_appear_together(tmp_path):
    with pytest.raises(OSError), all_written_whole(tmp_path) as new:
        (new / "one").touch()
        raise OSError
    assert names(tmp_path) == []
    with all_written_whole(tmp_path) as new:
        for name in ("one", "two"):
            (new / name).touch()
    assert names(tmp_path) == ["one", "two"]


def test_an_output_has_the_permissions_of_any_new_file(tmp_path):
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    plain.touch()
    with written_whole(whole) as new:
        new.touch()
    assert whole.stat().st_mode == plain.stat().st_mode


def test_impossible_outputs_are_refused_before_any_work(tmp_path):
    require_folder(tmp_path / "out", "--output out")
    with pytest.raises(UserError, match=r"^--output out: there is no folder .*/none; create it first$"):
        require_folder(tmp_path / "none" / "out", "--output out")
    refuse_existing([tmp_path / "out"], force=False)
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="/out exists; choose another --output, or pass --force"):
        refuse_existing([tmp_path / "free", tmp_path / "out"], force=False)
    refuse_existing([tmp_path / "free", tmp_path / "out"], force=True)
    with pytest.raises(UserError, match="is a folder, but the output is a file"):
        refuse_existing([tmp_path], force=True)
    assert strangers(tmp_path, ["out"]) == [] and strangers(tmp_path, ["other"]) == ["out"]
