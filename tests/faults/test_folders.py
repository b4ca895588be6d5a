"""Folders: every recording that can be read is taken, and every other file is counted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.commands import inputs
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio import folders, open_audio
from tests.samples.speech import noise

RATE = 16_000
FORMATS = {  # name of a file -> format and subtype
    "a.wav": ("WAV", "PCM_16"),
    "b.flac": ("FLAC", "PCM_16"),
    "c.ogg": ("OGG", "VORBIS"),
    "d.opus": ("OGG", "OPUS"),
    "e.mp3": ("MP3", "MPEG_LAYER_III"),
    "f.aiff": ("AIFF", "PCM_16"),
    "g.AIF": ("AIFF", "PCM_16"),
    "h.au": ("AU", "PCM_16"),
    "i.snd": ("AU", "PCM_16"),
    "j.caf": ("CAF", "PCM_16"),
    "k.w64": ("W64", "PCM_16"),
    "l.sph": ("NIST", "PCM_16"),
    "m.voc": ("VOC", "PCM_16"),
    "n.rf64": ("RF64", "PCM_16"),
    "o.oga": ("OGG", "VORBIS"),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, (kind, subtype) in FORMATS.items():
        soundfile.write(tmp_path / name, noise(0.5), RATE, format=kind, subtype=subtype)
    return tmp_path


def test_every_format_that_soundfile_reads_is_taken(folder, capsys):
    found = inputs.utterances([str(folder)])
    assert [Path(utterance.row["audio_filepath"]).name for utterance in found] == list(FORMATS)
    assert all(abs(utterance.duration - 0.5) < 0.1 and not utterance.problem for utterance in found)
    assert capsys.readouterr().err == ""


def test_the_extensions_come_from_the_formats_of_soundfile(monkeypatch):
    known = {f".{name.lower()}" for name in soundfile.available_formats()}
    assert {".wav", ".flac", ".aiff", ".au", ".caf", ".w64", ".sph", ".opus", ".mp3"} <= folders.extensions()
    assert {".raw", ".mat4", ".mat5", ".htk"} == known - folders.extensions()
    folders.extensions.cache_clear()
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "RAW": ""})
    assert ".au" not in folders.extensions() and ".snd" not in folders.extensions()
    monkeypatch.undo()
    folders.extensions.cache_clear()


def test_files_that_are_left_out_are_counted_by_kind(folder, capsys):
    for name in ("notes.txt", "list.txt", "picture.JPG", "README", "samples.raw"):
        (folder / name).write_text("x")
    (folder / "sub").mkdir()
    (folder / "linked").symlink_to(folder / "sub")
    assert len(inputs.utterances([str(folder)])) == len(FORMATS)
    assert capsys.readouterr().err == (
        f"left out in the folder {folder}: 2 .txt, 1 .jpg, 1 .raw, 1 link to a folder, 1 without an extension\n"
    )


def test_hidden_files_and_folders_are_passed_over(folder, capsys):
    for place in (".git", "__MACOSX", "sub/.hidden", "sub/__MACOSX"):
        (folder / place).mkdir(parents=True)
        soundfile.write(folder / place / "x.wav", noise(0.5), RATE)
    for name in ("._a.wav", ".x.wav", ".DS_Store", "sub/._b.flac"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "folder.wav").mkdir()
    assert len(inputs.utterances([str(folder)])) == len(FORMATS)
    assert capsys.readouterr().err == ""


def test_a_folder_without_audio_names_what_it_has(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"no audio in the folder .* for .*\.flac .* \(left out .*: 1 \.txt\)"):
        inputs.utterances([str(tmp_path)])


def test_without_pyav_the_extra_is_named(folder, capsys, monkeypatch):
    (folder / "p.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    folders.extensions.cache_clear()
    monkeypatch.setattr(folders.importlib.util, "find_spec", lambda name: None)
    inputs.utterances([str(folder)])
    monkeypatch.undo()
    folders.extensions.cache_clear()
    error = capsys.readouterr().err
    assert "1 .m4a; to read .m4a, run: pip install 'nemo-squeezeformer[audio]'" in error


def test_bad_files_of_a_folder_keep_their_place_if_the_reading_is_not_strict(folder):
    (folder / "a.wav").write_bytes(b"RIFF no wave")
    (folder / "e.mp3").write_bytes(b"")
    os.mkfifo(folder / "h.au.wav")
    found = inputs.utterances([str(folder)], strict=False)
    problems = {Path(utterance.row["audio_filepath"]).name: utterance.problem for utterance in found}
    assert list(problems) == sorted([*FORMATS, "h.au.wav"])
    assert {name for name, problem in problems.items() if problem} == {"a.wav", "e.mp3", "h.au.wav"}
    assert all(name in problem for name, problem in problems.items() if problem)
    with pytest.raises(UserError, match="3 of 16 audio files cannot be used"):
        inputs.utterances([str(folder)])


@pytest.mark.skipif(os.name != "posix", reason="the names of files are bytes on POSIX systems")
def test_a_name_that_is_not_utf_8_is_read_and_shown_with_its_bytes(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    soundfile.write(tmp_path / "cafe.wav", noise(0.5), RATE, subtype="FLOAT")
    os.rename(tmp_path / "cafe.wav", name)
    for given in (str(tmp_path), os.fsdecode(name)):
        (utterance,) = inputs.utterances([given])
        assert utterance.row["audio_filepath"] == str(tmp_path / r"caf\xe9.wav")
        assert utterance.duration == 0.5
        with open_audio(utterance.audio) as file:
            np.testing.assert_array_equal(file.read(), noise(0.5))
    open(name, "wb").close()
    (utterance,) = inputs.utterances([str(tmp_path)], strict=False)
    assert "is empty (0 bytes)" in utterance.problem and utterance.problem.isprintable()
    assert utterance.row["audio_filepath"].isprintable()
