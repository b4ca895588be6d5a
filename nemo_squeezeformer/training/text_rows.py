"""The texts of the local manifests of a recipe, split by split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_rows import good_rows
from nemo_squeezeformer.training.data import manifest_files
from nemo_squeezeformer.training.settings import value

SPLITS = {"train_ds": "training", "validation_ds": "validation", "test_ds": "test"}
LIMIT = 500_000  # the most rows of a split that are read, divided equally between the manifests
PLAIN_TYPES = ("nemo", "nemo_tarred", "multimodal_conversation")  # types of an input_cfg that have a manifest


class TextRow(NamedTuple):
    """A row of a manifest.

    Attributes:
        text: the text, or None if the row has no text.
        language: the language of the row, for an aggregate tokenizer; None if the row has no language.
        seconds: the duration; 0 if the row has no duration.
    """

    manifest: str
    number: int
    text: str | None
    language: str | None
    seconds: float

    @property
    def place(self) -> str:
        return f"{self.manifest}, line {self.number}"


@dataclass(frozen=True)
class Split:
    """The rows of a split that NeMo does not leave out because of the duration.

    Attributes:
        key: the section of the recipe, for example ``train_ds``.
        field: the field of a row that contains the text.
        language_field: the field of a row that names the language.
        rows: the rows.
    """

    key: str
    field: str
    language_field: str
    rows: list[TextRow]

    @property
    def name(self) -> str:
        return SPLITS[self.key]


def read_split(cfg: Any, key: str) -> Split | None:
    """Return the rows of the local manifests of a split, or None if the split has no local manifest.

    Raises:
        UserError: a manifest cannot be read, or the text of a row is not a string.
    """
    section = value(cfg, f"model.{key}")
    if not isinstance(section, dict):
        return None
    lhotse = bool(section.get("use_lhotse"))
    field = str(section.get("text_field") or "text") if lhotse else "text"
    language = str(section.get("lang_field") or "lang") if lhotse else "lang"
    manifests = [path for path in manifests_of(section) if "://" not in path and os.path.isfile(path)]
    if not manifests:
        return None
    shortest, longest = (section.get(name) for name in ("min_duration", "max_duration"))
    rows = [
        row
        for path in manifests
        for row in islice(_rows(path, field, language), max(1, LIMIT // len(manifests)))
        if not row.seconds or (row.seconds >= (shortest or 0) and row.seconds <= (longest or float("inf")))
    ]
    return Split(key, field, language, rows)


def manifests_of(section: Any) -> Iterator[str]:
    """Yield the manifests of a data section and of the data sets that an ``input_cfg`` names."""
    yield from manifest_files(section.get("manifest_filepath"))
    inputs = section.get("input_cfg")
    if isinstance(inputs, str) and os.path.isfile(inputs):
        import yaml

        with open(inputs, encoding="utf-8") as file:
            inputs = yaml.safe_load(file)
    for each in inputs if isinstance(inputs, list) else []:
        if isinstance(each, dict) and each.get("type") in (*PLAIN_TYPES, "group"):
            yield from manifests_of(each)


def _rows(path: str, field: str, language: str) -> Iterator[TextRow]:
    for number, row in good_rows(path):
        text = row.get(field)
        if text is None and row.get("text_filepath"):  # NeMo reads the text from this file
            continue
        if text is not None and not isinstance(text, str):
            raise UserError(f"{path}, line {number}: {field} {text!r} is not a string; write it in quotation marks")
        seconds = row.get("duration")
        spoken = row.get(language)
        yield TextRow(path, number, text, None if spoken is None else str(spoken), float(seconds or 0.0))
