"""Utterances that are in the training data and also in the validation or test data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemo_squeezeformer.files.manifest_rows import good_rows
from nemo_squeezeformer.files.manifests import audio_path
from nemo_squeezeformer.training.data import manifest_files
from nemo_squeezeformer.training.settings import value

Place = tuple[str, int]  # a manifest and the number of a line
Recording = tuple[Any, float]  # the paths of the audio, and the offset
SHARED_TEXT = 0.5  # a message appears if a larger share of the evaluation texts are also training texts
FEWEST = 20  # smallest number of evaluation texts for this message; with fewer texts, the share says little


def recordings(manifests: Iterable[str]) -> dict[Recording, Place]:
    """Return the first row of each recording of the local manifests."""
    found: dict[Recording, Place] = {}
    for path in manifests:
        for number, row in good_rows(path):
            found.setdefault(recording(row, path), (path, number))
    return found


def recording(row: Mapping[str, Any], manifest: str) -> Recording:
    """Return what identifies the audio of a row: the absolute paths, and the offset in seconds."""
    audio = row.get("audio_filepath") or ""
    names = audio if isinstance(audio, list) else [audio]
    paths = tuple(os.path.abspath(audio_path(str(name), manifest)) for name in names)
    return paths, round(float(row.get("offset") or 0.0), 3)


def find(train: Sequence[str], other: Sequence[str], name: str) -> Iterator[str]:
    """Yield a message if recordings or most texts of an evaluation set are in the training data.

    Args:
        train: the manifests of the training data.
        other: the manifests of the evaluation data.
        name: the name of the evaluation data in messages, for example ``validation``.
    """
    seen, evaluated = recordings(train), recordings(other)
    both = [(place, seen[each]) for each, place in evaluated.items() if each in seen]
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
    texts = {str(row.get("text")) for path in train for _, row in good_rows(path) if row.get("text")}
    given = [str(row["text"]) for path in other for _, row in good_rows(path) if row.get("text")]
    known = sum(text in texts for text in given)
    if len(given) >= FEWEST and known > SHARED_TEXT * len(given):
        yield (
            f"{known:,} of {len(given):,} texts of the {name} data are also training texts, so the error rate does not "
            f"show how well the model transcribes new texts; use other texts for the {name} data if your texts are not "
            "always the same"
        )


def check(cfg: Any) -> Iterator[str]:
    """Yield the messages for the validation and the test data of a composed recipe. Tar files are not compared."""
    train = local(cfg, "train_ds")
    for key, name in (("validation_ds", "validation"), ("test_ds", "test")):
        if train and (other := local(cfg, key)):
            yield from find(train, other, name)


def local(cfg: Any, key: str) -> list[str]:
    """Return the local manifests of a split, or nothing if the audio of the split is in tar files."""
    if value(cfg, f"model.{key}.is_tarred") or value(cfg, f"model.{key}.tarred_audio_filepaths"):
        return []
    named = manifest_files(value(cfg, f"model.{key}.manifest_filepath"))
    return [path for path in named if "://" not in path and os.path.isfile(path)]
