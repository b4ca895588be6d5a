"""The text of manifests and of plain text files, from which a tokenizer is trained."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_lines import UTF_8_MARK, read_lines
from nemo_squeezeformer.files.manifest_paths import expanded
from nemo_squeezeformer.files.manifest_rows import encoding_problem, good_rows

PLAIN_TEXT = (".txt", ".txt.gz")
RESERVED = "\u2585"  # SentencePiece leaves out each sentence with this character, without a message


class _Sentence(NamedTuple):
    path: str
    line: int
    text: str


def read_sentences(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the texts of all files, and notices for the user.

    The notices are about rows without a text, about texts with the character that SentencePiece reserves, which is
    removed, and about texts that are not in the Unicode form NFC.

    Raises:
        UserError: a file is missing, a row cannot be read, or the files have no text. The message names the file and
            the line.
    """
    paths = [each for path in paths for each in expanded(path)]
    found = [sentence for path in paths for sentence in (_lines(path) if _is_plain(path) else _rows(path))]
    readable = [sentence._replace(text=sentence.text.replace(RESERVED, " ").strip()) for sentence in found]
    texts = [sentence for sentence in readable if sentence.text]
    if not texts:
        raise UserError(f"there is no text in {', '.join(paths)}; training needs rows with a non-empty `text`")
    notices = []
    if empty := [sentence for sentence in found if not sentence.text]:
        notices.append(f"{len(empty)} of {len(found)} rows have no text; the first is {_place(empty[0])}")
    if decomposed := [sentence for sentence in texts if not unicodedata.is_normalized("NFC", sentence.text)]:
        notices.append(
            f"{len(decomposed)} of {len(texts)} texts are not in the Unicode form NFC; the first is "
            f"{_place(decomposed[0])}; the pieces are in NFC, so convert the text to NFC before training and before "
            "the word error rate is measured"
        )
    if reserved := [sentence for sentence in found if RESERVED in sentence.text]:
        notices.append(
            f"{len(reserved)} of {len(found)} texts have the character {RESERVED!r} (U+2585), which no tokenizer of "
            f"SentencePiece can have; the first is {_place(reserved[0])}; the tokenizer is trained without this "
            "character, so remove the character from the text before training"
        )
    return [sentence.text for sentence in texts], notices


def _is_plain(path: str) -> bool:
    return path.lower().endswith(PLAIN_TEXT)


def _place(sentence: _Sentence) -> str:
    return f"line {sentence.line} of {sentence.path}"


def _lines(path: str) -> Iterator[_Sentence]:
    for number, line in read_lines(path, "text file"):
        if not line.isascii() and (problem := encoding_problem(line)):
            raise UserError(f"{path}, line {number}: {problem}")
        yield _Sentence(path, number, line.strip().lstrip(UTF_8_MARK))


def _rows(path: str) -> Iterator[_Sentence]:
    try:
        for number, row in good_rows(path, for_training=True):
            yield _Sentence(path, number, row.get("text", "").strip())
    except UserError as error:
        hint = "" if path.lower().endswith((".json", ".jsonl", ".gz")) else "; a plain text file must be named *.txt"
        raise UserError(f"{error}{hint}") from None
