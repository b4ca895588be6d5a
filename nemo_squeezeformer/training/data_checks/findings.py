"""The problems of data in words: problems of manifests, and problems of manifests with a certain model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_rows import UnusableRows, good_rows
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.training.data_checks import left_out, sample_rates, shared_rows, text_check
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import TextRow

FAST = 30.0  # characters per second; fast speech in an alphabet has about 20


def of_manifest(made: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a manifest, from its report."""
    name, rows, text = made["manifest"], made["rows"], made["text"]
    if made["unusable"]:
        yield f"{made['unusable']:,} of {rows:,} rows of {name} cannot be used, the first: {made['problems'][0]}"
    if made["repeated_recordings"]:
        number = f"{made['repeated_recordings']:,} of {rows:,} rows of {name}"
        yield f"{number} have the recording of an earlier row; remove them"
    if text["missing"]:
        yield f"{text['missing']:,} of {rows:,} rows of {name} have no text; add the text, or remove the rows"
    if len(made["sample_rates"]) > 1:
        rates = ", ".join(f"{number:,} with {rate} Hz" for rate, number in made["sample_rates"].items())
        yield f"the recordings of {name} have several sample rates ({rates}); NeMo resamples them to the model's rate"
    if len(made["channels"]) > 1 or made["channels"].keys() - {"1"}:
        channels = ", ".join(f"{number:,} with {each}" for each, number in made["channels"].items())
        if made["channels"]:
            yield (
                f"recordings of {name} have several channels ({channels}); for training, "
                "add +model.train_ds.channel_selector=average"
            )
    speed = text["characters_per_second"]
    if speed and speed > FAST:
        yield f"the text of {name} has {speed} characters per second, more than speech has; check the durations"
    remedies = {"silent": "remove them", "clipped": "record them with a lower level", "unreadable": "copy them again"}
    for kind, remedy in remedies.items():
        if (found := made.get(kind)) and found["files"]:
            number = f"{found['files']:,} of {rows:,} recordings of {name}"
            yield f"{number} are {kind}, the first: {found['first'][0]}; {remedy}"


def of_sets(training: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Yield the problems of the manifests of validation and test data with the manifests of training data."""
    if not others:
        return
    train = shared_rows.read(training)
    seen = {letter for path in training for letter in _letters(_rows(path))}
    for other in others:
        name, rows = Path(other).stem, _rows(other)
        yield from shared_rows.find(train, shared_rows.read([other]), name)
        if seen:
            yield from text_check.of_unseen(name, _letters(rows), seen, rows)


def compared(found: Iterator[str]) -> Iterator[str]:
    """Yield the problems of a comparison. If rows cannot be used, the last problem says that the comparison ended."""
    try:
        yield from found
    except UnusableRows:
        yield "the text was not compared, because rows cannot be used; correct these rows, and run the command again"


def _rows(manifest: str) -> list[TextRow]:
    return [TextRow(manifest, number, row.get("text"), None, 0.0) for number, row in good_rows(manifest)]


def _letters(rows: Sequence[TextRow]) -> Counter[str]:
    return Counter(letter for row in rows for letter in row.text or "" if not letter.isspace())


def with_model(cfg: Any, training: Sequence[Utterance]) -> Iterator[str]:
    """Yield the problems of the data of a composed recipe with the vocabulary, the frames and the features of a model.

    Args:
        training: the rows of the training data.
    """
    found: list[str] = []
    rate, highest = value(cfg, "model.sample_rate", 16000), value(cfg, "model.preprocessor.highfreq")
    yield from sample_rates.find(training, rate, highest, "training")
    try:
        left_out.check(cfg, found.append)
        text_check.check(cfg, found.append)
    except UnusableRows:
        yield from found
        raise
    except UserError as error:
        found.append(f"training refuses this: {error}")
    yield from found
