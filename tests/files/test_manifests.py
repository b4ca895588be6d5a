"""Tests of manifests: errors in rows are found before training or transcribing, and reported with a remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import manifests
from nemo_squeezeformer.files.manifest_paths import expanded
from tests.samples.bad_recordings import write_without_length

RATE = 16_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a manifest, with one second of audio. The current folder is another folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    data = tmp_path / "data"
    (data / "wavs").mkdir(parents=True)
    soundfile.write(data / "wavs/one.wav", np.zeros(RATE), RATE)
    return data


def written(folder: Path, *rows: object) -> Path:
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return manifest


def test_rows_give_a_segment_of_audio_with_a_path_relative_to_the_manifest(folder):
    rows = [
        {"audio_filepath": "wavs/one.wav", "duration": 1.0, "text": "whole", "speaker": "a"},
        {"audio_filepath": "wavs/one.wav", "duration": 0.25, "offset": 0.5, "text": "part"},
    ]
    whole, part = manifests.read_utterances(written(folder, rows[0], "", rows[1]))
    assert (whole.row, part.row) == tuple(rows)
    assert whole.audio == str(folder / "wavs/one.wav")
    assert (whole.offset, whole.duration, whole.channels) == (0.0, 1.0, 1)
    assert (part.offset, part.duration) == (0.5, 0.25)


def test_paths_are_resolved_as_in_nemo(folder, monkeypatch):
    get_full_path = pytest.importorskip("nemo.collections.common.parts.preprocessing.manifest").get_full_path
    manifest = str(folder / "rows.jsonl")
    long_name = "d/" * 130 + "one.wav"
    for name in [
        "wavs/one.wav",
        str(folder / "wavs/one.wav"),
        "gone.wav",
        "~/one.wav",
        "s3://bucket/one.wav",
        long_name,
    ]:
        assert manifests.audio_path(name, manifest) == get_full_path(name, manifest), name
    monkeypatch.chdir(folder.parent)
    assert manifests.audio_path("wavs/one.wav", "data/rows.jsonl") == get_full_path("wavs/one.wav", "data/rows.jsonl")


def test_braces_are_expanded_as_in_nemo(tmp_path):
    nemo = pytest.importorskip("nemo.collections.asr.data.audio_to_text")
    for pattern in (
        "p_{1..3}.json",
        "p__OP_01..10_CL_.json",
        "p_(a,b).json",
        "p_[1..2]_<3..1>.json",
        "p_{{1,2},c}.json",
    ):
        path = str(tmp_path / pattern)
        assert expanded(path) == nemo.expand_sharded_filepaths(path, "replicate", 1, 0), pattern


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("{'audio_filepath': 1}", ["is not JSON", "one JSON object per line"]),
        ('[{"audio_filepath": "wavs/one.wav"}]', ["not a JSON object"]),
        ({"text": "a"}, ["has no audio_filepath", "text"]),
        ({"audio_filepath": "wavs/one.wav"}, ["has no duration", "add it"]),
        ({"audio_filepath": "wavs/gone.wav", "duration": 1}, ["wavs/gone.wav", "does not exist"]),
        ({"audio_filepath": "/", "duration": 1}, ["is not a file"]),
        ({"audio_filepath": "zero.wav", "duration": 1}, ["zero.wav", "0 bytes"]),
        ({"audio_filepath": "silent.wav", "duration": 1}, ["silent.wav", "no samples"]),
        ({"audio_filepath": "broken.flac", "duration": 1}, ["broken.flac", "corrupt", "convert it to one of"]),
        ({"audio_filepath": "piped.flac", "duration": 1}, ["piped.flac", "does not say its length", "ffmpeg -i"]),
        ({"audio_filepath": "wavs/one.wav", "duration": "1"}, ["duration '1'", "number of seconds"]),
        ({"audio_filepath": "wavs/one.wav", "duration": -1}, ["duration -1"]),
        ({"audio_filepath": "wavs/one.wav", "duration": 0}, ["duration 0"]),
        ({"audio_filepath": "wavs/one.wav", "duration": 5}, ["duration 5", "more than the 1.00 s"]),
        ({"audio_filepath": "wavs/one.wav", "duration": 0.4}, ["duration 0.4", "less than the 1.00 s", '"offset": 0']),
        ({"audio_filepath": "wavs/one.wav", "duration": 0.4, "offset": 1.5}, ["offset 1.5", "past the end"]),
        ({"audio_filepath": "wavs/one.wav", "duration": 0.9, "offset": 0.9}, ["offset 0.9", "more than the 1.00 s"]),
    ],
)
def test_a_bad_row_is_reported_with_its_line_and_a_remedy(folder, row, named):
    (folder / "zero.wav").touch()
    soundfile.write(folder / "silent.wav", np.zeros(0), RATE)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(60))
    write_without_length(folder / "piped.flac")
    manifest = written(folder, {"audio_filepath": "wavs/one.wav", "duration": 1}, row)
    with pytest.raises(UserError) as error:
        manifests.read_utterances(manifest)
    message = str(error.value)
    assert f"{manifest}: 1 of 2 rows" in message
    assert "line 2: " in message
    for part in named:
        assert part in message


def test_one_error_counts_all_bad_rows_and_shows_the_first_few(folder):
    good = {"audio_filepath": "wavs/one.wav", "duration": 1}
    bad = [{"audio_filepath": f"gone{number}.wav", "duration": 1} for number in range(9)]
    with pytest.raises(UserError, match="10 of 11 rows") as error:
        manifests.read_utterances(written(folder, *bad[:3], good, "no JSON", *bad[3:]))
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == [f"line {number}" for number in (1, 2, 3, 5, 6)]
    assert lines[-1].strip() == "... and 5 more"


def test_small_differences_of_duration_are_accepted(folder):
    rows = [{"audio_filepath": "wavs/one.wav", "duration": seconds} for seconds in (0.99, 1.01)]
    assert [utterance.duration for utterance in manifests.read_utterances(written(folder, *rows))] == [0.99, 1.0]


def test_a_missing_duration_is_read_from_the_file_if_it_is_not_required(folder):
    (utterance,) = manifests.read_utterances(
        written(folder, {"audio_filepath": "wavs/one.wav", "offset": 0.25}), ["audio_filepath"]
    )
    assert utterance.duration == 0.75


@pytest.mark.parametrize("content", [None, "", "\n \n", b"\xff\xfe\x00"])
def test_a_missing_empty_or_binary_manifest_is_reported(folder, content):
    manifest = folder / "rows.jsonl"
    if content is not None:
        manifest.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="rows.jsonl: (no such manifest|the manifest is empty|cannot be read)"):
        manifests.read_utterances(manifest)


def test_every_supported_audio_format_has_a_readable_header(folder):
    for kind, (name, subtype) in {"FLAC": ("flac", None), "OGG": ("ogg", None), "MP3": ("mp3", None)}.items():
        soundfile.write(folder / f"a.{name}", np.zeros((RATE, 2)), RATE, format=kind, subtype=subtype)
    soundfile.write(folder / "a.opus", np.zeros((RATE, 2)), RATE, format="OGG", subtype="OPUS")
    soundfile.write(folder / "a.wav", np.zeros((RATE, 2)), RATE)
    found = manifests.read_files([folder / f"a{kind}" for kind in sorted(manifests.AUDIO_EXTENSIONS)])
    assert [utterance.channels for utterance in found] == [2] * 5
    assert [utterance.duration for utterance in found] == pytest.approx([1.0] * 5, abs=0.1)


def test_files_that_cannot_be_used_are_reported_together(folder):
    with pytest.raises(UserError, match="2 of 3 audio files") as error:
        manifests.read_files([folder / "a.wav", folder / "wavs/one.wav", folder / "b.wav"])
    assert "a.wav" in str(error.value) and "b.wav" in str(error.value)


def test_checking_needs_neither_nemo_nor_torch(folder):
    manifest = written(folder, {"audio_filepath": "wavs/one.wav", "duration": 1})
    code = (
        "import sys; from nemo_squeezeformer.files import manifests; "
        f"assert len(manifests.read_utterances({str(manifest)!r})) == 1; "
        "assert not {'nemo', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
