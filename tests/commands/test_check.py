"""`nemo-squeezeformer check`: each problem of data is found without training, in words and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.training.data_checks import manifest_report
from tests.samples.speech import RATE, noise


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    """Write a manifest and its recordings. A row can have ``samples`` and ``rate``."""
    lines = []
    for number, row in enumerate(rows):
        samples, rate = row.pop("samples", noise(1.0, number)), row.pop("rate", RATE)
        row = {"audio_filepath": f"{name}{number}.wav", "duration": len(samples) / rate, "text": "one two"} | row
        soundfile.write(folder / row["audio_filepath"], samples, rate, subtype="FLOAT")
        lines.append(json.dumps(row) + "\n")
    (folder / f"{name}.json").write_text("".join(lines))
    return str(folder / f"{name}.json")


def found(capsys, *arguments: str) -> str:
    assert main(["check", *arguments]) == 1
    return capsys.readouterr().out


def test_good_manifests_have_a_table_and_no_problem(tmp_path, capsys):
    train, dev = write(tmp_path, "train", [{}, {"text": "three"}]), write(tmp_path, "dev", [{"text": "tone"}])
    assert main(["check", train, dev]) == 0
    shown = capsys.readouterr().out
    assert "rows            2\n" in shown and "16000 Hz: 2" in shown
    assert "characters      8: ' ehnortw'" in shown
    assert shown.endswith("no problem was found\n")


def test_json_has_the_same_facts(tmp_path, capsys):
    train = write(tmp_path, "train", [{}, {"samples": np.zeros(RATE)}])
    assert main(["check", train, "--json"]) == 1
    made = json.loads(capsys.readouterr().out)
    (facts,) = made["manifests"]
    assert facts["rows"] == 2 and facts["seconds"] == {"shortest": 1.0, "median": 1.0, "longest": 1.0}
    assert facts["sample_rates"] == {"16000": 2} and facts["text"]["words"] == 4
    assert facts["silent"]["files"] == 1 and len(made["found"]) == 1


CASES = [  # rows, and parts of the message
    ([{}, {"samples": np.zeros(RATE)}], ["1 of 2 recordings", "are silent", "train1.wav"]),
    ([{"samples": np.sign(noise(1.0))}], ["are clipped, the first", "train0.wav", "lower level"]),
    ([{"samples": np.full(RATE, np.nan)}], ["are unreadable", "not finite"]),
    ([{}, {"duration": 9.0}], ["1 of 2 rows", "9.0 s is more than the 1.00 s", "correct the row"]),
    ([{}, {"audio_filepath": "train0.wav"}], ["1 of 2 rows", "have the recording of an earlier row"]),
    ([{}, {"samples": noise(1.0)[::2], "rate": 8000}], ["several sample rates (1 with 16000 Hz, 1 with 8000 Hz)"]),
    ([{}, {"samples": np.stack([noise(1.0)] * 2, 1)}], ["several channels (1 with 1, 1 with 2)", "channel_selector"]),
    ([{"text": "one " * 20}], ["80.0 characters per second", "check the durations"]),
]


@pytest.mark.parametrize("rows, words", CASES, ids=[words[0] for _, words in CASES])
def test_each_problem_of_a_manifest_is_found(rows, words, tmp_path, capsys):
    shown = found(capsys, write(tmp_path, "train", [dict(row) for row in rows]))
    assert all(word in shown for word in words), shown


def test_a_row_without_text_is_found(tmp_path, capsys):
    train = write(tmp_path, "train", [{}])
    Path(train).write_text(Path(train).read_text().replace(', "text": "one two"', ""))
    assert "1 of 1 rows" in found(capsys, train)


def test_recordings_and_texts_in_two_sets_are_found(tmp_path, capsys):
    rows = [{"text": f"text {number}"} for number in range(20)]
    train = write(tmp_path, "train", [dict(row) for row in rows])
    dev = write(tmp_path, "dev", [{"audio_filepath": "train0.wav"}, {}])
    shown = found(capsys, train, dev)
    assert "1 of 2 recordings of the dev data are also training data" in shown and "train.json, line 1" in shown
    dev = write(tmp_path, "other", [dict(row) for row in rows])
    assert "20 of 20 texts of the other data are also training texts" in found(capsys, train, dev)


def test_characters_that_only_the_second_set_has_are_found(tmp_path, capsys):
    train = write(tmp_path, "train", [{"text": "ONE TWO"}])
    dev = write(tmp_path, "dev", [{"text": "two one"}])
    shown = found(capsys, train, dev)
    assert "100.0% of the characters of the dev text never occur in the training text: 'otwne'" in shown
    assert shown.strip().endswith("write the text in upper case")


def test_the_files_of_the_first_manifest_are_all_training_data(tmp_path, capsys):
    write(tmp_path, "train_0", [{"text": f"text {number}"} for number in range(20)])
    write(tmp_path, "train_1", [{"text": f"text {number}"} for number in range(20)])
    dev = write(tmp_path, "dev", [{"text": "zest"}])
    shown = found(capsys, f"{tmp_path}/train_{{0..1}}.json", dev)
    assert "found 1:" in shown and "of the dev text never occur" in shown
    shown = found(capsys, f"{tmp_path}/train_{{0..1}}.json", "--recipe", "squeezeformer_ctc_char", "model.labels=[a]")
    assert "of 220 characters of the training text" in shown


def test_a_row_that_is_not_json_is_one_problem(tmp_path, capsys):
    train = write(tmp_path, "train", [{}])
    Path(train).write_text(Path(train).read_text() + json.dumps({"audio_filepath": "gone.wav", "duration": 1.0}) + "\n")
    assert "found 1:" in found(capsys, train)


@pytest.mark.parametrize("recipe", [[], ["--recipe", "squeezeformer_ctc_char"]])
def test_rows_that_cannot_be_used_do_not_hide_the_facts_of_the_other_rows(recipe, tmp_path, capsys):
    train, dev = write(tmp_path, "train", [{}, {}]), write(tmp_path, "dev", [{}, {}])
    Path(dev).write_text(Path(dev).read_text() + "{broken\n")
    shown = found(capsys, train, dev, *recipe)
    assert "rows            3, of these 1 cannot be used" in shown and "found 2:" in shown
    assert "dev.json, line 3: not a JSON object" in shown and "the text was not compared" in shown


def test_rows_that_cannot_be_used_do_not_hide_what_was_found_before(tmp_path, capsys):
    train, dev = write(tmp_path, "train", [{"samples": noise(17.0)}, {}]), write(tmp_path, "dev", [{}])
    Path(dev).write_text("{broken\n")
    shown = found(capsys, train, dev, "--recipe", "squeezeformer_ctc_char")
    assert "1 of 2 recordings of the training data" in shown and "the text was not compared" in shown


@pytest.mark.parametrize(
    "given, message",
    [(["squeezeformer_ctc_bpe"], "model.tokenizer.dir is not set"), (["squeezeformer_ctc_char", "a=b"], "+a=b")],
)
def test_a_recipe_is_refused_before_the_recordings_are_read(given, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(manifest_report, "report", None)
    assert main(["check", write(tmp_path, "train", [{}]), "--recipe", *given]) == 2
    assert message in capsys.readouterr().err


def test_overrides_that_a_model_refuses_are_named_with_the_option_of_the_command(ctc_file, tmp_path, capsys):
    train = write(tmp_path, "train", [{}])
    for override, message in (("size=xs", "without --model"), ("model.a=1", f"--model {ctc_file}")):
        assert main(["check", train, "--model", str(ctc_file), override]) == 2
        assert message in capsys.readouterr().err


def test_a_manifest_that_is_given_twice_is_named(tmp_path, capsys):
    train = write(tmp_path, "train", [{}])
    assert f"(both have the manifest {train})" in found(capsys, train, train)


def test_other_features_than_the_features_of_a_model_are_found(ctc_file, tmp_path, capsys):
    train = write(tmp_path, "train", [{}])
    shown = found(capsys, train, "--model", str(ctc_file), "model.preprocessor.normalize=NA")
    assert "normalize is per_feature in the file and NA in the model" in shown


def test_the_vocabulary_and_the_rate_of_a_model_are_compared(ctc_file, tmp_path, capsys):
    rows: list[dict[str, Any]] = [{"text": "ONE TWO", "samples": noise(1.0)[::2], "rate": 8000}]
    shown = found(capsys, write(tmp_path, "train", rows), "--model", str(ctc_file))
    assert "training refuses this" in shown and "write the text in lower case" in shown
    assert "1 of 1 recordings of the training data have a sample rate of 8000 Hz" in shown
    assert "mel bands up to 8000 Hz" in shown


def test_a_finding_about_the_tokenizer_of_a_model_names_the_model(hybrid_file, tmp_path, capsys):
    train = write(tmp_path, "train", [{"text": "seven q"}])
    shown = found(capsys, train, "--model", str(hybrid_file), "--json")
    assert f"of the training text are unknown to the tokenizer of {hybrid_file}: 'q'" in shown
    assert tempfile.gettempdir() + "/nemo-squeezeformer-" not in shown


def test_the_frames_of_a_recipe_are_compared_and_the_five_worst_are_named(tmp_path, capsys):
    rows: list[dict[str, Any]] = [{"samples": noise(0.5, n), "text": "seven " * (n + 3)} for n in range(7)]
    rows.append({"samples": noise(17.0), "text": "one"})
    shown = found(capsys, write(tmp_path, "train", rows), "--recipe", "squeezeformer_ctc_char")
    worst = ", ".join(f"{tmp_path}/train.json, line {n + 1} needs {6 * n + 18} and has 13" for n in (6, 5, 4, 3, 2))
    assert "7 of 7 utterances of the training data" in shown and f"The worst: {worst}. " in shown
    assert "1 of 8 recordings of the training data (0.00 of 0.01 hours) are longer than" in shown
    assert "the longest: 17 s, " in shown


def test_a_long_override_is_not_taken_for_a_path(tmp_path, capsys):
    labels = f"model.labels=[{','.join(f'l{number}' for number in range(150))}]"
    shown = found(capsys, write(tmp_path, "train", [{}]), "--recipe", "squeezeformer_ctc_char", labels)
    assert "are not in model.labels" in shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none.json"], "none.json: cannot be read"),
        (["size=m"], "no manifest is given"),
        (["TRAIN", "size=m"], "add --recipe RECIPE or --model MODEL"),
        (["TRAIN", "--recipe", "none"], "no recipe none"),
        (["TRAIN", "--recipe", "squeezeformer_ctc_bpe"], "model.tokenizer.dir is not set; create a tokenizer with"),
        (["TRAIN", "--model", "none.nemo"], "--model none.nemo: there is no such file"),
        (["TRAIN", "--model", "none.h5"], "--model none.h5: a file of TensorFlow does not contain the settings"),
        ([], "required: MANIFEST"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    given = [write(tmp_path, "train", [{}]) if each == "TRAIN" else each for each in arguments]
    try:
        status = main(["check", *given])
    except SystemExit as end:  # of argparse
        status = end.code
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 2 and message in error and not error.endswith(", key=value")


def test_the_command_loads_neither_nemo_nor_torch(tmp_path):
    train = write(tmp_path, "train", [{}])
    program = (
        "import sys; from nemo_squeezeformer.__main__ import main\n"
        f"assert main(['check', {train!r}]) == 0\n"
        "assert not {'nemo', 'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
