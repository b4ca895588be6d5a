"""The vocabulary of a recipe: the tokens of a text, and the characters that the vocabulary lacks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any, NamedTuple, Protocol

from nemo_squeezeformer.files.sentencepiece_model import read_model
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import TextRow

UNKNOWN = "[UNK]"  # the unknown piece of WordPiece


class Encoded(NamedTuple):
    """The numbers of tokens and frames of one text.

    Attributes:
        unknown: number of unknown tokens, or of characters that NeMo drops.
        frames: number of frames that CTC needs: a frame for each token, and a blank between two equal tokens.
    """

    unknown: int
    frames: int


class Vocabulary(Protocol):
    """The units of a model. ``setting`` is the setting that names the vocabulary."""

    setting: str

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the numbers of tokens and frames of each text."""

    def missing(self, letters: Iterable[str]) -> set[str]:
        """Return the characters that the vocabulary does not have."""

    def normalized(self, text: str) -> str:
        """Return the text as the model sees it."""


@dataclass
class Characters:
    """The labels of a recipe without a tokenizer. NeMo drops the other characters of a text."""

    labels: Sequence[str]
    setting: str = "model.labels"

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        known = set(self.labels)
        return [_of_characters(text, known) for text in texts]

    def missing(self, letters: Iterable[str]) -> set[str]:
        return set(letters) - {letter for label in self.labels for letter in label}

    def normalized(self, text: str) -> str:
        return text


class SentencePieces:
    """A SentencePiece tokenizer. A character that the model lacks becomes the unknown piece."""

    def __init__(self, path: str, setting: str):
        self.setting = setting
        self.model = read_model(path)[1]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        unknown = self.model.unk_id()
        return [
            Encoded(ids.count(unknown), len(ids) + _repeats(ids))
            for ids in self.model.encode(list(texts), num_threads=os.cpu_count() or 1)
        ]

    def missing(self, letters: Iterable[str]) -> set[str]:
        unknown = self.model.unk_id()
        return {letter for letter in letters if unknown in self.model.encode(letter)}

    def normalized(self, text: str) -> str:
        return str(self.model.normalize(text))


class WordPieces:
    """A WordPiece tokenizer. A word with a character that the vocabulary lacks becomes the unknown piece."""

    def __init__(self, path: str, setting: str):
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        self.setting = setting
        with open(path, encoding="utf-8") as lines:
            pieces = dict.fromkeys([*(line.rstrip("\n") for line in lines), UNKNOWN])
        numbers = {piece: number for number, piece in enumerate(pieces)}
        self.unknown = numbers[UNKNOWN]
        self.model = Tokenizer(models.WordPiece(numbers, unk_token=UNKNOWN))
        self.model.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        self.model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.letters = {letter for piece in pieces for letter in piece.removeprefix("##")}

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        found = []
        for encoding in self.model.encode_batch(list(texts), add_special_tokens=False):
            ids = encoding.ids
            found.append(Encoded(ids.count(self.unknown), len(ids) + _repeats(ids)))
        return found

    def missing(self, letters: Iterable[str]) -> set[str]:
        return {letter for letter in letters if not letter.isspace() and letter not in self.letters}

    def normalized(self, text: str) -> str:
        return text


def vocabularies(cfg: Any) -> dict[str | None, Vocabulary]:
    """Return the vocabulary of a recipe as the value of the key None.

    With an aggregate tokenizer, return the vocabulary of each language by the name of the language. A tokenizer that
    this module cannot read is left out.
    """
    found: dict[str | None, Vocabulary] = {}
    tokenizer = value(cfg, "model.tokenizer")
    if tokenizer is None:
        labels = value(cfg, "model.labels")
        return {None: Characters(labels)} if labels else {}
    languages = tokenizer.get("langs") or {}
    sections = {name: f"model.tokenizer.langs.{name}" for name in languages} or {None: "model.tokenizer"}
    for name, section in sections.items():
        if name != "spl_tokens" and (made := _read(value(cfg, section, {}), section)) is not None:
            found[name] = made
    return found


def encode_rows(rows: Sequence[TextRow], known: Mapping[str | None, Vocabulary]) -> list[Encoded]:
    """Return the numbers of tokens of each row. Equal texts are encoded once.

    Args:
        rows: rows of a manifest. The language of each row is a key of ``known``.
        known: the result of ``vocabularies``.
    """
    found: dict[tuple[str | None, str], Encoded] = {}
    for language, vocabulary in known.items():
        texts = list(dict.fromkeys(row.text or "" for row in rows if row.language == language))
        found |= {(language, text): each for text, each in zip(texts, vocabulary.encode(texts))}
    return [found[row.language, row.text or ""] for row in rows]


def _read(section: dict[str, Any], name: str) -> Vocabulary | None:
    kind, folder = str(section.get("type")).lower(), section.get("dir") or ""
    setting = f"{name}.dir={folder}"
    if kind == "bpe":
        path = section.get("model_path") or os.path.join(folder, "tokenizer.model")
        return SentencePieces(path, setting) if os.path.isfile(path) else None
    if kind == "wpe":
        path = section.get("vocab_path") or os.path.join(folder, "vocab.txt")
        return WordPieces(path, setting) if os.path.isfile(path) else None
    return None


def _of_characters(text: str, known: set[str]) -> Encoded:
    kept = text if known.issuperset(text) else [letter for letter in text if letter in known]
    return Encoded(len(text) - len(kept), len(kept) + _repeats(kept))


def _repeats(tokens: Sequence[Any]) -> int:
    return sum(map(eq, tokens, tokens[1:]))
