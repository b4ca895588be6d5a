"""The command line `nemo-squeezeformer`, independent of its commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nemo_squeezeformer.__main__ import main


def test_without_nemo_the_error_names_the_remedy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hydra", None)
    assert main(["train", "squeezeformer_ctc_char", "--print"]) == 2
    assert "the module hydra is not installed; run: pip install 'nemo-squeezeformer[nemo]'" in capsys.readouterr().err


def test_a_missing_module_of_the_user_is_not_reported_as_missing_nemo(monkeypatch, tmp_path):
    (tmp_path / "script.py").write_text("import no_such_module")
    command = [sys.executable, "-m", "nemo_squeezeformer", "run", str(tmp_path / "script.py")]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1 and "No module named 'no_such_module'" in process.stderr


def test_overrides_may_follow_an_option(capsys):
    assert main(["train", "squeezeformer_ctc_char", "size=xs", "--print", "trainer.max_epochs=7"]) == 0
    assert "max_epochs: 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "--lm-weight", "high"], "--lm-weight: 'high' is not a number"),
        (["transcribe", "--longest", "long"], "--longest: 'long' is not a number"),
        (["stream", "--endpoint", "soon"], "--endpoint: 'soon' is not a number"),
        (["stream", "--sample-rate", "1"], "--sample-rate: 1: expected a sample rate in Hz from 1000 to 1000000"),
        (["lm", "--order", "1e3"], "--order: '1e3' is not a whole number"),
    ],
)
def test_a_wrong_number_is_refused_in_plain_words(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["train", "--no-such-option"], ["tokenizer", "a.json", "--unknown"], ["fly"]])
def test_an_unknown_argument_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: nemo-squeezeformer" in capsys.readouterr().err


@pytest.mark.parametrize("given, meant", [("tokeniser", "tokenizer"), ("infos", "info"), ("--fly", "")])
def test_a_misspelt_command_is_refused_with_the_command_that_is_meant(given, meant, capsys):
    with pytest.raises(SystemExit):
        main([given])
    shown = capsys.readouterr().err.splitlines()[-1]
    assert (f"there is no command {given}; did you mean {meant}?" in shown) == bool(meant)


def test_starting_loads_neither_torch_nor_nemo():
    program = (
        "import sys; from nemo_squeezeformer.__main__ import build_parser; build_parser()\n"
        "assert not {'torch', 'nemo', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
