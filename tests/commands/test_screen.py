"""The line of a terminal with the text so far: its width is at most the width of the terminal."""

from __future__ import annotations

import io
import os
import shutil
from types import SimpleNamespace

import pytest

from nemo_squeezeformer.commands.rows import screen
from nemo_squeezeformer.commands.rows.screen import Screen, _tail
from nemo_squeezeformer.transcription.subtitles.words import columns


@pytest.mark.parametrize("text", ["one two three four", "今日はとても良い天気です", "the 天気 is 良い"])
def test_the_end_of_a_text_fits_into_the_columns(text):
    for width in range(2, columns(text)):
        shown = _tail(text, width)
        assert width - 2 < columns(shown) <= width and shown[0] == "…" and text.endswith(shown[1:])
    assert _tail(text, columns(text)) == text


@pytest.mark.parametrize("width", [0, -5])
def test_a_terminal_without_a_free_column_shows_no_text(width):
    assert _tail("one", width) == _tail("", width) == "" and _tail("one", 1) == "…"


def test_the_time_for_the_end_of_a_text_does_not_grow_with_its_length(monkeypatch):
    measured: list[str] = []
    monkeypatch.setattr(screen, "columns", lambda text: measured.append(text) or columns(text))
    assert _tail("天気" * 10_000, 9) == "…" + "天気" * 2
    assert sum(map(len, measured)) < 20


def test_the_name_of_a_stream_and_its_text_fit_into_the_terminal(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((20, 24)))
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    Screen(terminal, ["東京の天気", "b"]).show(SimpleNamespace(index=0, rows=[], final=False, text="one two three"))
    line = terminal.getvalue().removeprefix("\r\x1b[K")
    assert line.startswith("東京の天気: …") and columns(line) == 19
