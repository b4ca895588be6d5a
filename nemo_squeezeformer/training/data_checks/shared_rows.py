"""Utterances that are in the training data and also in the validation or test data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from nemo_squeezeformer.files.manifest_rows import good_rows
from nemo_squeezeformer.files.manifests import audio_path
from nemo_squeezeformer.training.data import manifest_files
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import LIMIT, SPLITS

Place = tuple[str, int]  # a manifest and the number of a line
Recording = tuple[Any, float]  # the paths of the audio, and the offset
SHARED_TEXT = 0.5  # a message appears if a larger share of the evaluation texts are also training texts
FEWEST = 20  # smallest number of evaluation texts for this message; with fewer texts, the share says little


class Rows(NamedTuple):
    """The recordings and the texts of manifests.

    Attributes:
        recordings: the first row of each recording.
        texts: the text of each row with a text.
    """

    recordings: dict[Recording, Place]
    texts: list[str]


def read(manifests: Sequence[str]) -> Rows:
    """Return the recordings and the texts of local manifests. At most ``LIMIT`` rows are read."""
    found, texts = dict[Recording, Place](), list[str]()
    for path in manifests:
        for number, row in islice(good_rows(path), max(1, LIMIT // len(manifests))):
            found.setdefault(recording(row, path), (path, number))
            if row.get("text"):
                texts.append(str(row["text"]))
    return Rows(found, texts)


def recording(row: Mapping[str, Any], manifest: str) -> Recording:
    """Return what identifies the audio of a row: the absolute paths, and the offset in seconds."""
    audio = row.get("audio_filepath") or ""
    names = audio if isinstance(audio, list) else [audio]
    paths = tuple(os.path.abspath(audio_path(str(name), manifest)) for name in names)
    return paths, round(float(row.get("offset") or 0.0), 3)


def find(train: Rows, other: Rows, name: str) -> Iterator[str]:
    """Yield a message if recordings or most texts of an evaluation set are in the training data.

    Args:
        train: the rows of the training data.
        other: the rows of the evaluation data.
        name: the name of the evaluation data in messages, for example ``validation``.
    """
    evaluated = other.recordings
    both = [(place, train.recordings[each]) for each, place in evaluated.items() if each in train.recordings]
    if both:
        (there, line), (here, own) = both[0]
        where, remedy = f"the first: {there}, line {line}, and {here}, line {own}", "remove these rows from"
        if os.path.abspath(there) == os.path.abspath(here):
            where, remedy = f"both have the manifest {here}", "use another manifest for"
        yield (
            f"{len(both):,} of {len(evaluated):,} recordings of the {name} data are also training data ({where}), so "
            f"the error rate does not show how well the model transcribes new recordings; {remedy} the {name} data"
        )
        return
    texts, number = set(train.texts), len(other.texts)
    known = sum(text in texts for text in other.texts)
    if number >= FEWEST and known > SHARED_TEXT * number:
        yield (
            f"{known:,} of {number:,} texts of the {name} data are also training texts, so the error rate does "
            f"not show how well the model transcribes new texts; use other texts for the {name} data if your texts are "
            "not always the same"
        )


def check(cfg: Any) -> Iterator[str]:
    """Yield the messages for the validation and the test data of a composed recipe. Tar files are not compared."""
    if not (training := local(cfg, "train_ds")):
        return
    others = {name: local(cfg, key) for key, name in SPLITS.items() if key != "train_ds"}
    train = read(training) if any(others.values()) else None
    for name, manifests in others.items():
        if train and manifests:
            yield from find(train, read(manifests), name)


def local(cfg: Any, key: str) -> list[str]:
    """Return the local manifests of a split, or nothing if the audio of the split is in tar files."""
    if value(cfg, f"model.{key}.is_tarred") or value(cfg, f"model.{key}.tarred_audio_filepaths"):
        return []
    named = manifest_files(value(cfg, f"model.{key}.manifest_filepath"))
    return [path for path in named if "://" not in path and os.path.isfile(path)]
