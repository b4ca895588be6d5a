"""Damaged and hostile manifests: each command names the file, the line and the remedy, or reads as NeMo reads."""

from __future__ import annotations

import gzip
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.commands import inputs
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_lines import LONGEST
from nemo_squeezeformer.files.manifest_paths import expanded
from nemo_squeezeformer.files.manifest_rows import read_rows
from nemo_squeezeformer.files.manifests import read_utterances
from nemo_squeezeformer.files.training_text import read_sentences
from nemo_squeezeformer.training.data_checks.manifest_checks import characters, check_manifests
from tests.samples.speech import noise

RATE = 16_000
GOOD = '{"audio_filepath": "one.wav", "duration": 1.0, "text": "one two"}\n'
MUTATIONS = {"rows": 600, "tokenizer": 600, "labels": 200, "train": 200, "transcribe": 200}  # damaged manifests
UNITS = 50  # levels of nesting times 2,000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of the manifests, with a second of audio."""
    folder: Path = tmp_path_factory.mktemp("manifests")
    soundfile.write(folder / "one.wav", noise(1.0), RATE)
    return folder


def written(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


# The reader of each command.
READERS: dict[str, Callable[[str], object]] = {
    "train": lambda path: read_utterances(path),
    "labels": characters,
    "tokenizer": lambda path: read_sentences([path]),
    "transcribe": lambda path: inputs.utterances([path]),
    "rows": lambda path: read_rows(path),
}

BAD_ROWS = {  # the second line of a manifest, and a part of its message
    "a list": ('["a"]', "not a JSON object"),
    "a number": ("5", "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "a text": ('"a"', "not a JSON object"),
    "no JSON": ("{'audio_filepath': 1}", "is not JSON (Expecting property name"),
    "two rows in a line": (GOOD.strip() + GOOD.strip(), "Extra data at column 66"),
    "a duration in quotation marks": ('{"audio_filepath": "one.wav", "duration": "1.5"}', "duration '1.5'"),
    "a duration that is true": ('{"audio_filepath": "one.wav", "duration": true}', "duration true"),
    "a duration that is a list": ('{"audio_filepath": "one.wav", "duration": [1]}', "duration [1]"),
    "a duration of NaN": ('{"audio_filepath": "one.wav", "duration": NaN}', "duration NaN"),
    "an infinite duration": ('{"audio_filepath": "one.wav", "duration": Infinity}', "duration Infinity"),
    "a duration of 1e400": ('{"audio_filepath": "one.wav", "duration": 1e400}', "duration Infinity"),
    "a duration of 400 digits": (f'{{"audio_filepath": "one.wav", "duration": {"9" * 400}}}', "duration 9999"),
    "an offset of 400 digits": (
        f'{{"audio_filepath": "one.wav", "duration": 1, "offset": {"9" * 400}}}',
        "offset 9999",
    ),
    "a number of 5000 digits": (f'{{"audio_filepath": "one.wav", "duration": {"9" * 5000}}}', "limit (4300 digits)"),
    "a text that is a number": ('{"audio_filepath": "one.wav", "duration": 1, "text": 5}', "text 5 is not a string"),
    "a text that is a list": ('{"audio_filepath": "one.wav", "duration": 1, "text": ["a"]}', 'text ["a"]'),
    "a text that is an object": ('{"audio_filepath": "one.wav", "duration": 1, "text": {"a": 1}}', 'text {"a": 1}'),
    "a text that is false": ('{"audio_filepath": "one.wav", "duration": 1, "text": false}', "text false"),
    "a path that is a number": ('{"audio_filepath": 7, "duration": 1, "text": "a"}', "audio_filepath 7"),
    "a path with NUL": ('{"audio_filepath": "a\\u0000b", "duration": 1, "text": "a"}', "the character \\u0000"),
    "NUL in the line": ('{"audio_filepath": "a\0b", "duration": 1, "text": "a"}', "Invalid control character"),
    "nesting": ('{"a": ' + "[" * 2000 * UNITS + "]" * 2000 * UNITS + "}", "the nesting is too deep"),
    "nesting that json reads": ('{"a": ' + "[" * 300 + "]" * 300 + "}", "more than 100 levels"),
    "half of a character": ('{"audio_filepath": "one.wav", "duration": 1, "text": "\\ud83d"}', "the character \\ud83d"),
    "half of a character in another field": (
        '{"audio_filepath": "one.wav", "duration": 1, "text": "a", "b": "\\udce9"}',
        "the character \\udce9",
    ),
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_every_command_names_the_file_and_the_line_of_a_bad_row(folder, kind, command):
    row, reason = BAD_ROWS[kind]
    path = written(folder, f"{GOOD}{row}\n{GOOD}")
    with pytest.raises(UserError) as caught:
        READERS[command](str(path))
    first, line = str(caught.value).splitlines()
    assert first == f"{path}: 1 of 3 rows cannot be used"
    assert line.startswith("  line 2: ") and reason in line and ";" in line and len(line) < 400 and line.isprintable()


@pytest.mark.parametrize("command", READERS)
def test_a_byte_that_is_not_utf_8_is_named_with_its_line(folder, command):
    path = written(folder, (GOOD + GOOD.replace("one two", "caf\xe9")).encode("latin1"))
    with pytest.raises(UserError, match=r"line 2: .*caf\\udce9.* has the byte 0xe9, which is not UTF-8, .*iconv -f"):
        READERS[command](str(path))


WHOLE = {  # content of the manifest, and a part of the message
    "0 bytes": (b"", "is empty"),
    "spaces": (b" \n\t\n", "is empty"),
    "UTF-8 with a byte-order mark": (b"\xef\xbb\xbf" + GOOD.encode(), "byte-order mark, which NeMo does not read"),
    "UTF-16": (GOOD.encode("utf-16"), "the file is UTF-16"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "bytes that are zero"),
    "a WAV file": (b"RIFF\x24\0\0\0WAVEfmt ", "bytes that are zero"),
    "gzip without .gz": (gzip.compress(GOOD.encode()), "is compressed by gzip; add .gz"),
    "a JSON array of several lines": (json.dumps([json.loads(GOOD)], indent=1).encode(), "jq -c '.[]'"),
    "a JSON object of several lines": (json.dumps(json.loads(GOOD), indent=1).encode(), "jq -c '.'"),
    "a line that is too long": (b"a" * (LONGEST + 1), "line 1: the line has more than"),
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("kind", WHOLE)
def test_every_command_names_a_file_that_is_not_a_manifest(folder, kind, command):
    content, reason = WHOLE[kind]
    path = written(folder, content)
    with pytest.raises(UserError) as caught:
        READERS[command](str(path))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path)) and reason in line


@pytest.mark.parametrize("command", ["train", "tokenizer", "transcribe", "rows"])
def test_a_folder_a_pipe_and_a_device_are_not_manifests(folder, tmp_path, command):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    for name, kind in (("folder", "is a folder"), ("pipe", "pipe or device"), ("zero", "pipe or device")):
        with pytest.raises(UserError, match=f"{name}.jsonl: .*{kind}"):
            READERS[command](str(tmp_path / f"{name}.jsonl"))
    for name in ("loop.jsonl", "gone.jsonl", "x" * 300 + ".jsonl"):
        with pytest.raises(UserError, match="cannot be read: no such manifest; check the path"):
            READERS[command](str(tmp_path / name))


def test_a_manifest_from_a_pipe_of_the_shell_is_read():
    reading, writing = os.pipe()
    os.write(writing, GOOD.encode())
    os.close(writing)
    assert read_sentences([f"/dev/fd/{reading}"]) == (["one two"], [])
    os.close(reading)


def test_a_row_at_which_the_file_ends_is_named(folder):
    with pytest.raises(UserError, match="line 3: .* the file ends inside the row; write the manifest again"):
        read_rows(written(folder, GOOD + GOOD + GOOD[:40]))


@pytest.mark.parametrize("command", READERS)
def test_lines_may_end_as_nemo_reads_them(folder, command):
    """NeMo opens a manifest with universal newlines. The last row needs no end of line."""
    read = READERS[command](str(written(folder, GOOD * 2)))
    for content in (
        GOOD.strip() + "\n\n" + GOOD.strip(),
        (GOOD * 2).replace("\n", "\r"),
        (GOOD * 2).replace("\n", "\r\n"),
    ):
        assert str(READERS[command](str(written(folder, content)))) == str(read) or command == "rows"


def test_of_two_equal_keys_the_last_is_read_as_in_nemo(folder):
    path = written(folder, '{"audio_filepath": "one.wav", "duration": 9, "duration": 1.0, "text": "a"}\n')
    (utterance,) = read_utterances(path)
    assert utterance.duration == 1.0


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.JSONL.GZ"])
@pytest.mark.parametrize("command", READERS)
def test_a_manifest_that_gzip_compressed_is_read(folder, name, command):
    plain = READERS[command](str(written(folder, GOOD)))
    assert READERS[command](str(written(folder, gzip.compress(GOOD.encode()), name))) == plain


def test_a_damaged_gzip_file_is_named(folder):
    content = gzip.compress(GOOD.encode() * 1000)
    cut, changed = content[: len(content) // 2], content[:30] + b"abcd" + content[34:]
    for damaged in (cut, changed, content[:-4] + b"\0\0\0\0"):
        with pytest.raises(UserError, match="rows.jsonl.gz: the manifest cannot be read .*; copy the file again"):
            read_rows(written(folder, damaged, "rows.jsonl.gz"))
    with pytest.raises(UserError, match="is not compressed by gzip; remove .gz"):
        read_rows(written(folder, GOOD, "rows.jsonl.gz"))


def test_a_gzip_file_that_expands_to_one_huge_line_is_refused_with_little_memory(folder):
    import tracemalloc

    content = gzip.compress(b" " * 1000) + gzip.compress(b"0" * 2**26)
    path = written(folder, content, "rows.jsonl.gz")
    tracemalloc.start()
    with pytest.raises(UserError, match="line 1: the line has more than 16,777,216 characters"):
        read_rows(path)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


@pytest.mark.parametrize("command", ["tokenizer", "transcribe", "labels"])
def test_every_command_expands_braces(folder, command):
    for number in (1, 2):
        written(folder, GOOD, f"p_{number}.jsonl")
    both = [str(folder / "p_1.jsonl"), str(folder / "p_2.jsonl")]
    for pattern in ("p_{1..2}.jsonl", "p__OP_1..2_CL_.jsonl", "p_(1..2).jsonl", "p_[1..2].jsonl", "p_<1..2>.jsonl"):
        path = str(folder / pattern)
        assert expanded(path) == both
        if command != "labels":
            assert len(READERS[command](path)[0] if command == "tokenizer" else READERS[command](path)) == 2
        else:
            assert characters(path)["o"] == 4


def test_braces_that_name_too_many_files_or_are_not_closed_are_refused(tmp_path):
    for pattern in ("a_{1..99999999999}.jsonl", "a_{1..9999}_{1..9999}.jsonl"):
        with pytest.raises(UserError, match="names more than 1,000,000 files"):
            expanded(str(tmp_path / pattern))
    with pytest.raises(UserError, match="a brace is not closed"):
        expanded("rows_{1..2.jsonl")
    written(tmp_path, GOOD, "rows (1).jsonl")
    assert expanded(str(tmp_path / "rows (1).jsonl")) == [str(tmp_path / "rows (1).jsonl")]


def test_a_bad_row_keeps_its_place_if_the_reading_is_not_strict(folder):
    bad = '{"audio_filepath": "gone.wav", "duration": 1}\n'
    path = written(folder, GOOD + "no JSON\n" + bad + GOOD)
    read = read_utterances(path, strict=False)
    assert [bool(utterance.problem) for utterance in read] == [False, True, True, False]
    assert read[1].row == {} and read[1].problem.startswith(f"{path}, line 2: not a JSON object: no JSON")
    assert read[2].row == json.loads(bad) and read[2].problem.startswith(f"{path}, line 3: audio file ")
    assert (read[2].duration, read[2].channels) == (0.0, 0)


def test_a_text_of_null_is_refused_where_text_is_trained_on_and_is_no_text_in_transcribe(folder):
    path = written(folder, GOOD + '{"audio_filepath": "one.wav", "duration": 1.0, "text": null}\n')
    for command in ("train", "tokenizer"):
        with pytest.raises(UserError, match="line 2: text is null, and NeMo drops a row without a text"):
            READERS[command](str(path))
    assert [utterance.row["text"] for utterance in inputs.utterances([str(path)])] == ["one two", None]


def test_an_address_of_audio_is_refused_before_training(folder):
    for address in ("https://a.example/one.wav", "s3://bucket/one.wav"):
        path = written(folder, GOOD.replace("one.wav", address))
        for command in ("train", "transcribe"):
            with pytest.raises(UserError, match=f"line 1: audio '{address}' is an address"):
                READERS[command](str(path))


def mutations(number: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """Yield damaged manifests: changed, removed, repeated and inserted bytes, and JSON values of other kinds."""
    rng = random.Random(seed)
    base = (GOOD * 5).encode()
    values = [None, True, -1, 0, 1e308, float("nan"), "", "x", "\0", "\ud800", [], [[]], {}, {"a": []}, "1.5", 10**300]
    for _ in range(number // 2):
        content = bytearray(base)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(content))
            match rng.randrange(4):
                case 0:
                    content[place] = rng.randrange(256)
                case 1:
                    del content[place : place + rng.randint(1, 30)]
                case 2:
                    content[place:place] = content[: rng.randint(1, 60)]
                case 3:
                    content[place:place] = rng.randbytes(rng.randint(1, 8))
        yield bytes(content), "bytes"
    for _ in range(number // 2):
        rows = [json.loads(GOOD) for _ in range(3)]
        for _ in range(rng.randint(1, 3)):
            row = rng.choice(rows)
            row[rng.choice(["audio_filepath", "duration", "text", "offset", "other"])] = rng.choice(values)
        text = "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows)
        yield text.encode("utf-8", "surrogatepass"), "values"


@pytest.mark.parametrize("command", READERS)
def test_a_damaged_manifest_is_read_or_named_in_bounded_time(folder, command):
    """Every manifest gives a result or a UserError with the file and the line."""
    refused = 0
    for content, kind in mutations(MUTATIONS[command], seed=len(command)):
        path = written(folder, content)
        start = time.perf_counter()
        try:
            assert READERS[command](str(path)) is not None
        except UserError as error:
            refused += 1
            first, *lines = str(error).splitlines()
            assert str(path) in first and first.isprintable(), (content, kind)
            for line in lines[:5]:
                assert line.startswith("  line ") and line.isprintable(), (content, line)
        assert time.perf_counter() - start < 2
    assert refused > MUTATIONS[command] // 4


@pytest.mark.parametrize("command", ["train", "transcribe"])
def test_a_damaged_manifest_keeps_its_good_rows_if_the_reading_is_not_strict(folder, command):
    for content, _ in mutations(100, seed=7):
        try:
            read = read_utterances(written(folder, content), strict=False, for_training=command == "train")
        except UserError as error:
            assert "\n" not in str(error)
            continue
        for utterance in read:
            assert utterance.problem or utterance.channels == 1 and 0 < utterance.duration <= 1
            json.dumps(utterance.row)


def test_the_command_tokenizer_says_what_the_text_lacks(folder, tmp_path, capsys):
    path = written(folder, GOOD * 9 + '{"text": "cafe\u0301"}\n{"audio_filepath": "one.wav"}\n')
    arguments = ["tokenizer", str(path), "--vocab-size", "11", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    error = capsys.readouterr().err
    assert f"1 of 11 rows have no text; the first is line 11 of {path}" in error
    assert f"1 of 10 texts are not in the Unicode form NFC; the first is line 10 of {path}" in error
    written(folder, GOOD + "[1]\n")
    assert main([*arguments, "--force"]) == 2
    assert "line 2: not a JSON object" in capsys.readouterr().err


def check_training(path: Path | str, audio: bool = True, **settings: object) -> None:
    cfg = OmegaConf.create({"model": {"train_ds": {"manifest_filepath": str(path), **settings}}})
    check_manifests(cfg, "train_ds", audio)


def test_training_names_a_bad_row_before_nemo_reads_the_manifest_also_without_the_audio(folder):
    path = written(folder, GOOD + '{"audio_filepath": "gone.wav", "duration": "1.5", "text": "a"}\n')
    for settings in ({}, {"use_lhotse": True}, {"is_tarred": True}):
        for audio in (True, False):
            with pytest.raises(UserError, match=r"rows.jsonl: 1 of 2 rows .*\s+line 2: duration '1.5'"):
                check_training(path, audio, **settings)
    with pytest.raises(UserError, match="there is no file .*pipe.jsonl"):
        os.mkfifo(folder / "pipe.jsonl")
        check_training(folder / "pipe.jsonl")


def test_training_reads_a_manifest_that_gzip_compressed_only_with_lhotse(folder):
    path = written(folder, gzip.compress(GOOD.encode()), "rows.jsonl.gz")
    check_training(path, use_lhotse=True)
    with pytest.raises(UserError, match=r"rows.jsonl.gz: NeMo reads .* only with Lhotse; decompress it with gunzip"):
        check_training(path)


def test_stereo_beside_mono_is_named_before_training_with_the_remedy(folder):
    soundfile.write(folder / "two.wav", np.stack([noise(1.0), noise(1.0, 1)], axis=1), RATE)
    stereo = GOOD.replace("one.wav", "two.wav")
    with pytest.raises(UserError) as caught:
        check_training(written(folder, GOOD * 3 + stereo))
    message = str(caught.value)
    assert f"model.train_ds: 1 of 4 recordings have several channels (the first is {folder}/two.wav with 2" in message
    assert f"{folder}/one.wav has 1 channel" in message
    assert "add +model.train_ds.channel_selector=average" in message
    with pytest.raises(UserError, match="2 of 2 recordings have several channels"):
        check_training(written(folder, stereo * 2))
    for selector in ("average", 0):
        check_training(written(folder, GOOD + stereo), channel_selector=selector)
    check_training(written(folder, stereo), channel_selector=1)
    with pytest.raises(UserError, match="channel_selector=1: .*one.wav has no channel 1, .*; set"):
        check_training(written(folder, GOOD + stereo), channel_selector=1)
