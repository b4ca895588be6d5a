"""Real recordings of connected and single digits by six speakers, if they exist beside the checkout."""

from __future__ import annotations

import shutil

import pytest

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import manifests


def test_every_manifest_agrees_with_its_recordings(digits):
    found = {path.stem: manifests.read_utterances(path) for path in sorted(digits.glob("*.jsonl"))}
    assert len(found["connected_train"]) == 510 and len(found["single_train"]) == 1800
    assert all(0 < utterance.duration < 10 for utterances in found.values() for utterance in utterances)


def test_a_truncated_recording_is_reported(digits, tmp_path):
    (tmp_path / "audio").mkdir()
    row = (digits / "connected_dev.jsonl").read_text().splitlines()[0]
    name = row.split('"')[3]
    (tmp_path / name).parent.mkdir(parents=True)
    shutil.copyfile(digits / name, tmp_path / name)
    (tmp_path / "dev.jsonl").write_text(row)
    assert len(manifests.read_utterances(tmp_path / "dev.jsonl")) == 1
    (tmp_path / name).write_bytes((digits / name).read_bytes()[:20])
    with pytest.raises(UserError, match="line 1: .*"):
        manifests.read_utterances(tmp_path / "dev.jsonl")
