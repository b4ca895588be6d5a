"""Recordings that NeMo leaves out because of their duration: training says how many before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.data_checks import left_out
from nemo_squeezeformer.training.recipes import compose
from tests.samples.nemo_log import sent_to


def warnings_of(tmp_path: Path, caplog: Any, seconds: list[float], *settings: str) -> list[str]:
    rows = [{"audio_filepath": f"{number}.wav", "duration": each, "text": "a"} for number, each in enumerate(seconds)]
    manifest = tmp_path / "train.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [f"model.train_ds.manifest_filepath={manifest}", f"model.validation_ds.manifest_filepath={manifest}"]
    with sent_to(caplog.handler):
        caplog.clear()
        left_out.check(compose("squeezeformer_ctc_char_small", [*data, *settings]))
    return [record.getMessage() for record in caplog.records]


def test_recordings_outside_the_limits_are_counted_with_their_setting(tmp_path, caplog):
    long, short = warnings_of(tmp_path, caplog, [1.0, 20.0, 2.0, 30.0, 0.05, 0.01])
    assert long.startswith("2 of 6 recordings of the training data (0.01 of 0.01 hours) are longer than")
    assert "model.train_ds.max_duration=16.7 s" in long and "the longest: 30 s" in long and "line 4)" in long
    assert "1 of" not in short and short.startswith("2 of 6 recordings") and "the shortest: 0.01 s" in short
    assert "model.train_ds.min_duration=0.1 s" in short and short.endswith(
        "line 6); to keep these recordings, set model.train_ds.min_duration"
    )


def test_recordings_inside_the_limits_give_no_warning(tmp_path, caplog):
    assert warnings_of(tmp_path, caplog, [0.1, 16.7, 5.0]) == []
    assert (
        warnings_of(tmp_path, caplog, [0.05, 30.0], "model.train_ds.max_duration=30", "~model.train_ds.min_duration")
        == []
    )


def test_a_split_without_a_recording_that_is_kept_is_refused(tmp_path, caplog):
    with pytest.raises(
        UserError, match="2 of 2 recordings of the validation data .* model.validation_ds.max_duration=3"
    ):
        warnings_of(tmp_path, caplog, [4.0, 5.0], "+model.validation_ds.max_duration=3")
