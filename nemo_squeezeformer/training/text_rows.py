"""The texts of the local manifests of a recipe, split by split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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


class Source(NamedTuple):
    """A manifest, and how NeMo reads its rows.

    Attributes:
        path: the manifest.
        text_field: the field of a row that contains the text.
        language_field: the field of a row that names the language.
        tags: fields that NeMo adds to each row.
    """

    path: str
    text_field: str = "text"
    language_field: str = "lang"
    tags: Mapping[str, Any] = {}  # no code changes the dictionary


DEFAULT = Source("")  # the fields that NeMo reads without other settings


@dataclass(frozen=True)
class Split:
    """The rows of a split that NeMo does not leave out because of the duration.

    Attributes:
        key: the section of the recipe, for example ``train_ds``.
        field: the field of a row that contains the text, for messages.
        language_field: the field of a row that names the language, for messages.
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
    if not section.get("use_lhotse"):
        section = {key: section.get(key) for key in ("manifest_filepath", "min_duration", "max_duration")}
    sources = [each for each in sources_of(section) if "://" not in each.path and os.path.isfile(each.path)]
    if not value(cfg, "model.prompt_format"):  # only with a prompt, NeMo takes the language from the tags
        sources = [each._replace(tags={}) for each in sources]
    if not sources:
        return None
    shortest, longest = (section.get(name) for name in ("min_duration", "max_duration"))
    rows = [
        row
        for source in sources
        for row in islice(_rows(source), max(1, LIMIT // len(sources)))
        if not row.seconds or (row.seconds >= (shortest or 0) and row.seconds <= (longest or float("inf")))
    ]
    text = " or ".join(dict.fromkeys(each.text_field for each in sources))
    language = " or ".join(dict.fromkeys(each.language_field for each in sources))
    return Split(key, text, language, rows)


def sources_of(section: Mapping[str, Any], above: Source = DEFAULT) -> Iterator[Source]:
    """Yield the manifests of a data section and of the data sets that an ``input_cfg`` names.

    A data set has the fields of the group ``above`` that contains it, unless it names other fields. The tags of a group
    replace the tags of its data sets.
    """
    own = Source(
        "",
        str(section.get("text_field") or above.text_field),
        str(section.get("lang_field") or above.language_field),
        {**(section.get("tags") or {}), **above.tags},
    )
    for path in manifest_files(section.get("manifest_filepath")):
        yield own._replace(path=path)
    inputs = section.get("input_cfg")
    if isinstance(inputs, str) and os.path.isfile(inputs):
        import yaml

        with open(inputs, encoding="utf-8") as file:
            inputs = yaml.safe_load(file)
    for each in inputs if isinstance(inputs, list) else []:
        if isinstance(each, dict) and each.get("type") in (*PLAIN_TYPES, "group"):
            yield from sources_of(each, own)


def _rows(source: Source) -> Iterator[TextRow]:
    path, field = source.path, source.text_field
    for number, row in good_rows(path):
        text = row.get(field)
        if text is None and row.get("text_filepath"):  # NeMo reads the text from this file
            continue
        if text is not None and not isinstance(text, str):
            raise UserError(f"{path}, line {number}: {field} {text!r} is not a string; write it in quotation marks")
        seconds = row.get("duration")
        spoken = row.get(source.language_field, source.tags.get(source.language_field))
        yield TextRow(path, number, text, None if spoken is None else str(spoken), float(seconds or 0.0))
