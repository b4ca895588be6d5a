"""Tests that the output of a command neither follows links nor replaces files of the user."""

from __future__ import annotations

import pytest

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands.rows import partial_rows, transcripts
from nemo_squeezeformer.errors import UserError


@pytest.fixture(params=["transcribe", "stream"])
def arguments(request, ctc_file, noises, tmp_path) -> list[str]:
    return [request.param, str(ctc_file), noises[0], "--output", str(tmp_path / "out.jsonl")]


@pytest.mark.parametrize("name", ["out.jsonl.partial", "out.jsonl"])
def test_a_link_to_no_file_is_an_existing_output(name, arguments, tmp_path, capsys):
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    assert main(arguments) == 2
    assert f"{tmp_path / name} exists" in capsys.readouterr().err
    assert (tmp_path / name).is_symlink() and not (tmp_path / "elsewhere").exists()


def test_force_replaces_a_link_and_not_its_target(ctc_file, noises, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out.jsonl.ordered").write_text("mine")
    for name in ("out.jsonl", "out.jsonl.partial"):
        (tmp_path / name).symlink_to(tmp_path / "mine.txt")
    output = ["--output", str(tmp_path / "out.jsonl"), "--force"]
    assert main(["transcribe", str(ctc_file), noises[0], *output]) == 0
    assert (tmp_path / "mine.txt").read_text() == (tmp_path / "out.jsonl.ordered").read_text() == "mine"
    assert not (tmp_path / "out.jsonl").is_symlink() and "pred_text" in (tmp_path / "out.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "out.jsonl", "out.jsonl.ordered"]


def test_a_partial_file_that_appears_after_the_check_is_kept(tmp_path):
    output = tmp_path / "out.jsonl"
    transcripts.check_output(output, False, [])
    partial_rows.partial_of(output).write_text("mine")
    with pytest.raises(UserError, match=r"out\.jsonl\.partial exists"):
        partial_rows.PartialRows(output)
    assert partial_rows.partial_of(output).read_text() == "mine"
