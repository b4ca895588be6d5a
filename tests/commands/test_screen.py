"""The line of a terminal with the text so far: its width is at most the width of the terminal."""

from __future__ import annotations

import pytest

from nemo_squeezeformer.commands.rows.screen import _tail
from nemo_squeezeformer.transcription.subtitles.words import columns


@pytest.mark.parametrize("text", ["one two three four", "今日はとても良い天気です", "the 天気 is 良い"])
def test_the_end_of_a_text_fits_into_the_columns(text):
    for width in range(2, columns(text)):
        shown = _tail(text, width)
        assert width - 2 < columns(shown) <= width and shown[0] == "…" and text.endswith(shown[1:])
    assert _tail(text, columns(text)) == text
