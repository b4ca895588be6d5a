"""Tests that the check of the language finds its phrases where people read, and only there."""

from __future__ import annotations

import check_words
import pytest


def found(path, text: str) -> list[tuple[int, str]]:
    path.write_text(text, encoding="utf-8")
    return list(check_words.phrases(path))


@pytest.mark.parametrize("phrase", ["so many", "of which", "that there is none of", "is none", "the other way round"])
def test_a_phrase_in_a_page_is_an_error_with_a_remedy(tmp_path, capsys, phrase):
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\nFrames, {phrase} them.\n", encoding="utf-8")
    assert check_words.main([str(page)]) == 1
    assert f"{page}:3:" in capsys.readouterr().out
    page.write_text("# A page\n\nThe model has no layers.\n", encoding="utf-8")
    assert check_words.main([str(page)]) == 0 and not capsys.readouterr().out


def test_a_phrase_that_continues_on_the_next_line_is_found(tmp_path):
    assert found(tmp_path / "page.md", "three layers, so\nmany of them") == [(1, "so many")]
    assert found(tmp_path / "a.py", '"""Layers.\n\nTwo heads, of\nwhich x."""\n') == [(3, "of which")]


def test_code_and_quoted_words_are_not_searched(tmp_path):
    assert found(tmp_path / "page.md", "`so many` stays.\n\n```python\nso_many = 'so many'\n```\n") == []
    assert found(tmp_path / "a.py", "is_none = the_other_way_round = None  # fine\n") == []
    assert found(tmp_path / "a.py", "x = 1\ny = 2  # so many\nz = f'so many {x}'\n") == [(2, "so many"), (3, "so many")]
