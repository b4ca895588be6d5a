"""The synthetic data set: its seed determines it, each part has other voices, and the manifests match the audio."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs espeakng-loader")
pytest.importorskip("soundfile", reason="synthetic speech needs soundfile")

import espeak
import make_speech
import soundfile

from nemo_squeezeformer.errors import UserError
from tests.samples.paths import ROOT

SIZES = {"train": 40, "dev": 6, "test": 9}
VOICES = 18


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return folder, make_speech.make_speech(folder, SIZES, VOICES, seed=3)


def rows(manifest):
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(speech, tmp_path):
    make_speech.make_speech(tmp_path, SIZES, VOICES, seed=3)
    assert files(tmp_path) == files(speech[0])


def test_another_seed_gives_other_sentences_and_audio(speech, tmp_path):
    other = make_speech.make_speech(tmp_path, {"train": 4, "dev": 1, "test": 1}, 3, seed=4)
    assert [row["text"] for row in rows(other["train"])] != [row["text"] for row in rows(speech[1]["train"])[:4]]
    assert not set(files(tmp_path).values()) & set(files(speech[0]).values())


def test_a_voice_does_not_depend_on_what_was_spoken_before_it():
    voice = espeak.Voice("en-us", "m3", pitch=50, rate=150)  # m3 has flutter, whose state continues after an utterance
    first, _ = espeak.Synthesiser(voice, seed=1).speak("open the hall door")
    again = espeak.Synthesiser(voice, seed=1)
    alone, _ = again.speak("open the hall door")
    later, _ = again.speak("open the hall door")
    np.testing.assert_array_equal(first, alone)
    assert not np.array_equal(first, later)


def test_each_part_has_the_asked_size_and_no_voice_or_sentence_of_another(speech):
    parts = {part: rows(manifest) for part, manifest in speech[1].items()}
    assert {part: len(entries) for part, entries in parts.items()} == SIZES
    held_out = VOICES // 6
    voices = {part: {row["speaker"] for row in entries} for part, entries in parts.items()}
    assert {part: len(names) for part, names in voices.items()} == {"train": 12, "dev": held_out, "test": held_out}
    for part, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        variants = [{name.split("+")[1].split("-p")[0] for name in voices[p]} for p in (part, other)]
        assert not variants[0] & variants[1]
        assert not {row["text"] for row in parts[part]} & {row["text"] for row in parts[other]}


def test_audio_is_16_khz_mono_and_as_long_as_the_manifest_says(speech):
    for manifest in speech[1].values():
        for row in rows(manifest):
            info = soundfile.info(manifest.parent / row["audio_filepath"])
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert info.frames / 16000 == pytest.approx(row["duration"], abs=1e-4)


def test_words_cover_the_text_and_their_times_cover_the_speech(speech):
    for row in rows(speech[1]["train"]):
        words = row["words"]
        assert " ".join(word["word"] for word in words) == row["text"]
        bounds = [time for word in words for time in (word["start"], word["end"])]
        assert bounds == sorted(bounds)
        assert bounds[-1] <= row["duration"]
        audio, _ = soundfile.read(speech[0] / row["audio_filepath"])
        begin, end = (int(16000 * time) for time in (bounds[0], bounds[-1]))
        silence = np.concatenate([audio[: begin - 160], audio[end + 800 :]])
        assert np.mean(audio[begin:end] ** 2) > 30 * np.mean(silence**2)


def test_sentences_of_a_file_are_spoken_once(tmp_path):
    file, sizes = tmp_path / "sentences.txt", {"train": 3, "dev": 1, "test": 1}
    spoken = {"a small house", "two green apples", "we walk home", "it rains today", "the train is late"}
    file.write_text("\n".join([*sorted(spoken), "", "we walk home", " it rains today "]))
    manifests = make_speech.make_speech(tmp_path / "speech", sizes, 3, seed=0, sentences=file)
    texts = [row["text"] for manifest in manifests.values() for row in rows(manifest)]
    assert len(texts) == 5 and set(texts) == spoken
    with pytest.raises(UserError, match=r"has 5 different sentences, but 6 utterances are asked for; add sentences"):
        make_speech.make_speech(tmp_path / "more", sizes | {"dev": 2}, 3, seed=0, sentences=file)
    with pytest.raises(UserError, match=r"cannot read the sentences of .*absent\.txt"):
        make_speech.make_speech(tmp_path / "more", sizes, 3, seed=0, sentences=tmp_path / "absent.txt")


@pytest.mark.parametrize("accent", make_speech.ACCENTS)
def test_espeak_knows_every_accent(accent):
    espeak.Synthesiser(espeak.Voice(accent, "m1", 50, 150), seed=0)
    with pytest.raises(ValueError, match=r"no voice xx\+m1"):
        espeak.Synthesiser(espeak.Voice("xx", "m1", 50, 150), seed=0)


def test_every_variant_is_known_and_repeats_itself():
    for variant in make_speech.VARIANTS:
        voice = espeak.Voice("en-us", variant, 50, 150)
        once, again = (espeak.Synthesiser(voice, seed=0).speak("dim the lamp")[0] for _ in range(2))
        np.testing.assert_array_equal(once, again, err_msg=variant)
    with pytest.raises(ValueError, match=r"no voice en-us\+nobody"):
        espeak.Synthesiser(espeak.Voice("en-us", "nobody", 50, 150), seed=0)


@pytest.mark.parametrize(
    ("sizes", "voices", "message"),
    [
        ({"train": 0, "dev": 1, "test": 1}, 3, "0 utterances for train"),
        (SIZES, 2, "2 voices: expected 3"),
        (SIZES, make_speech.MOST_VOICES + 1, f"to {make_speech.MOST_VOICES}"),
    ],
)
def test_a_number_out_of_range_is_named(sizes, voices, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make_speech.make_speech(tmp_path, sizes, voices, seed=0)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to the folder .*file"):
        make_speech.make_speech(tmp_path / "file", {"train": 1, "dev": 1, "test": 1}, 3, seed=0)


def test_a_missing_espeak_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="pip install espeakng-loader"):
        espeak.Synthesiser(espeak.Voice("en-us", "m1", 50, 150), seed=0)


def test_the_program_reports_what_it_wrote_and_mistakes_without_a_traceback(tmp_path):
    script = ROOT / "scripts" / "make_speech.py"
    program = [sys.executable, str(script), "--output", str(tmp_path / "speech"), "--voices", "3"]
    done = subprocess.run(
        [*program, "--train", "2", "--dev", "1", "--test", "1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path / 'speech' / 'train.jsonl'}: 2 utterances" in done.stdout
    failed = subprocess.run([*program, "--train", "-1"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "error: -1 utterances for train" in failed.stderr
    assert "Traceback" not in failed.stderr
