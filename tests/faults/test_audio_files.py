"""Audio files that are damaged, cut or unusual: each file is read, or named with the second and the remedy."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import manifests
from nemo_squeezeformer.files.audio import av_audio, open_audio
from nemo_squeezeformer.files.audio.headers import read_header
from tests.samples.speech import noise

RATE = 16_000
FORMATS = {  # name of a file -> format and subtype
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "gsm.wav": ("WAV", "GSM610"),
    "adpcm.wav": ("WAV", "MS_ADPCM"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
    "a.aiff": ("AIFF", "PCM_16"),
    "a.w64": ("W64", "PCM_16"),
    "a.caf": ("CAF", "PCM_16"),
    "a.au": ("AU", "PCM_16"),
    "a.sph": ("NIST", "PCM_16"),
}
DAMAGED = 40  # damaged files of each format
AV_CODECS = {"a.m4a": ("aac", "ipod"), "a.mp4": ("aac", "mp4"), "a.3gp": ("aac", "3gp"), "a.aac": ("aac", "adts")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("audio")
    for name, (kind, subtype) in FORMATS.items():
        soundfile.write(folder / name, noise(2.0), RATE, format=kind, subtype=subtype)
    return folder


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_a_format_without_seeking_is_read_from_any_frame(tmp_path, subtype):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, noise(1.0), RATE, subtype=subtype)
    with soundfile.SoundFile(path) as file, pytest.raises(soundfile.LibsndfileError):
        file.seek(0)
    with open_audio(path) as file:
        whole = file.read()
        assert len(whole) == file.frames and not file.seekable
        for frame in (0, 5000, 4000, 0, file.frames - 10, file.frames, 12):
            file.seek(frame)
            np.testing.assert_array_equal(file.read(100), whole[frame : frame + 100])


def test_nemo_cannot_seek_in_gsm_so_an_offset_is_refused_before_training(folder):
    row = '{"audio_filepath": "gsm.wav", "duration": 0.5, "offset": 0.25, "text": "a"}\n'
    (folder / "gsm.jsonl").write_text(row)
    with pytest.raises(UserError, match="line 1: offset 0.25 s: NeMo cannot seek in the format of 'gsm.wav'; convert"):
        manifests.read_utterances(folder / "gsm.jsonl")
    (utterance,) = manifests.read_utterances(folder / "gsm.jsonl", for_training=False)
    assert utterance.offset == 0.25


# Opus is absent: a page can end at the cut, and the file then has no mark of the cut.
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "a.opus"])
def test_a_whole_file_has_no_problem_and_a_cut_file_is_named(folder, tmp_path, name):
    header = read_header(str(folder / name))
    assert not header.problem and abs(header.seconds - 2.0) < 0.1
    content = (folder / name).read_bytes()
    for part in (0.3, 0.5, 0.8):
        cut = tmp_path / name
        cut.write_bytes(content[: int(part * len(content))])
        problem = read_header(str(cut)).problem
        if not problem:  # the header of FLAC does not show that the file is cut
            with pytest.raises(UserError, match="is damaged after second|is cut: ") as error, open_audio(cut) as file:
                file.read()
            problem = str(error.value)
        assert str(cut) in problem and problem.isprintable() and ";" in problem


def test_a_size_in_the_header_that_a_pipe_leaves_open_is_not_a_cut_file(folder, tmp_path):
    content = bytearray((folder / "pcm.wav").read_bytes())
    for size in (2**32 - 1, 2**31 - 1, 2**32 - 37, 0):
        content[4:8] = content[40:44] = size.to_bytes(4, "little")
        (tmp_path / "pipe.wav").write_bytes(content)
        header = read_header(str(tmp_path / "pipe.wav"))
        assert size == 0 or not header.problem, header.problem


def test_a_cut_mp3_is_named_although_its_header_has_the_old_length(folder, tmp_path):
    path = tmp_path / "cut.mp3"
    content = (folder / "a.mp3").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with soundfile.SoundFile(path) as file:
        assert file.frames == 2 * RATE and len(file.read()) < 1.2 * RATE  # soundfile returns less without an error
    with pytest.raises(
        UserError, match=r"cut.mp3' is cut: the file has 1\.\d\d s, but its header says 2\.\d\d s; copy"
    ):
        manifests.read_files([path])
    with open_audio(path) as file, pytest.raises(UserError, match="cut.mp3' is cut"):
        file.read()


def test_blocks_and_a_whole_read_give_the_same_samples(folder):
    for name in FORMATS:
        with open_audio(folder / name) as file:
            whole = file.read()
        with open_audio(folder / name) as file:
            blocks = []
            while len(block := file.read(777)):
                blocks.append(block)
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_the_shape_and_the_type_of_samples_are_those_of_soundfile(tmp_path):
    soundfile.write(tmp_path / "stereo.flac", np.stack([noise(0.5), noise(0.5, 1)], axis=1), RATE)
    soundfile.write(tmp_path / "mono.flac", noise(0.5), RATE)
    for name in ("stereo.flac", "mono.flac"):
        for dtype in ("float32", "float64", "int16"):
            expected, _ = soundfile.read(tmp_path / name, dtype=dtype)
            with open_audio(tmp_path / name) as file:
                found = file.read(dtype=dtype)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    with open_audio(tmp_path / "mono.flac") as file:
        assert file.read(10, always_2d=True).shape == (10, 1)


def damaged(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield damaged contents of a file: half of the contents are damaged in the first 64 bytes."""
    for number in range(DAMAGED):
        changed = bytearray(content)
        end = 64 if number % 2 else len(changed)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(min(end, len(changed)))
            match rng.randrange(4):
                case 0:
                    changed[place] = rng.randrange(256)
                case 1:
                    changed[place : place + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80" * 4])
                case 2:
                    changed[place : place + 300] = rng.randbytes(300)
                case 3:
                    del changed[place : place + rng.randint(1, 200)]
        yield bytes(changed)


@pytest.mark.parametrize("name", [*FORMATS, *AV_CODECS])
def test_a_damaged_file_is_read_or_named_in_bounded_time_and_memory(folder, tmp_path, name):
    if name in AV_CODECS:
        encode(tmp_path / name, *AV_CODECS[name])
    content = (tmp_path / name if name in AV_CODECS else folder / name).read_bytes()
    path, refused = tmp_path / f"damaged{Path(name).suffix}", 0
    for changed in damaged(content, random.Random(name)):
        path.write_bytes(changed)
        start = time.perf_counter()
        try:
            header = read_header(str(path))
            if header.problem:
                raise UserError(header.problem)
            with open_audio(path) as file:
                assert header.seconds * file.samplerate < 2**40
                samples = file.read()
            assert len(samples) and samples.nbytes <= 2**24
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and str(error).isprintable() and ";" in str(error)
        assert time.perf_counter() - start < 5
    assert refused


def encode(path: Path, codec: str, container: str) -> None:
    """Write two seconds of noise with PyAV."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(2.0)[None], format="fltp", layout="mono")
        frame.rate, frame.pts = RATE, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        for part in fifo.read_many(1024, partial=True):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))


@pytest.mark.parametrize("name", AV_CODECS)
def test_formats_of_pyav_are_read_like_other_formats(tmp_path, name):
    path = tmp_path / name
    encode(path, *AV_CODECS[name])
    header = read_header(str(path))
    assert not header.problem and abs(header.seconds - 2.0) < 0.15 and header.channels == 1
    with open_audio(path) as file:
        whole = file.read()
        assert (file.samplerate, file.channels, whole.dtype) == (RATE, 1, np.float32)
        assert len(whole) == file.frames
        correlation = max(np.corrcoef(noise(2.0)[2000:20000], whole[2000 + s : 20000 + s])[0, 1] for s in (0, 1024))
        assert correlation > 0.9
        for frame in (20000, 1000):
            file.seek(frame)
            np.testing.assert_array_equal(file.read(500), whole[frame : frame + 500])
    assert read_header(str(path), only_soundfile=True).problem.endswith(
        "which NeMo does not read; convert it to flac or wav"
    )


def test_a_cut_file_of_pyav_is_named(tmp_path):
    encode(tmp_path / "a.mp4", "aac", "mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    for part in (0.3, 0.9):
        (tmp_path / "cut.mp4").write_bytes(content[: int(part * len(content))])
        with pytest.raises(UserError, match="cut.mp4' is (cut|corrupt)"):
            open_audio(tmp_path / "cut.mp4")


def test_a_playlist_in_a_file_does_not_open_other_files(folder, tmp_path):
    pytest.importorskip("av")
    other = folder / "pcm.wav"
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n"
    for content in (playlist, f"ffconcat version 1.0\nfile {other}\n", f"concat:{other}"):
        for extension in av_audio_extensions():
            path = tmp_path / f"list{extension}"
            path.write_text(content)
            with pytest.raises(UserError, match="corrupt or has a format that is not read"):
                open_audio(path)
    with pytest.raises(UserError, match="does not exist"):
        open_audio(f"concat:{other}")


def av_audio_extensions() -> list[str]:
    from nemo_squeezeformer.files.audio.audio_file import AV_EXTENSIONS

    return sorted(AV_EXTENSIONS)


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " * 10)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        UserError, match=r"format \.m4a needs the package av: pip install 'nemo-squeezeformer\[audio\]'"
    ):
        open_audio(tmp_path / "a.m4a")
    assert av_audio.AvAudio


def test_a_pipe_a_folder_and_a_missing_file_are_named(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "empty.wav").touch()
    for name, message in {
        "pipe.wav": "is not a file",
        ".": "is not a file",
        "gone.wav": "does not exist; correct the path",
        "a\0b.wav": "does not exist",
        "x" * 5000: "does not exist",
        "empty.wav": r"is empty \(0 bytes\)",
    }.items():
        with pytest.raises(UserError, match=message):
            open_audio(tmp_path / name)


def test_a_sample_rate_that_cannot_be_audio_is_refused(tmp_path):
    for rate in (1, 999, 2_000_000):
        soundfile.write(tmp_path / "a.wav", noise(0.1), rate)
        with pytest.raises(UserError, match=f"sample rate of {rate} Hz, which is not between 1000 and 1000000 Hz"):
            open_audio(tmp_path / "a.wav")


def test_samples_without_a_header_are_one_line(tmp_path):
    (tmp_path / "samples.raw").write_bytes(bytes(32000))
    with pytest.raises(UserError, match=r"samples.raw' is corrupt or has a format that is not read .*samplerate"):
        open_audio(str(tmp_path / "samples.raw"))
