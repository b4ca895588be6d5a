"""The two largest batches of the training data: the batch ``longest`` and the batch ``widest``.

All utterances of ``longest`` are as long as the longest utterance of the data. All utterances of ``widest`` are as long
as the utterance with the most tokens, and have as many tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.global_batch import utterances_of_batch
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import read_split
from nemo_squeezeformer.training.vocabularies import encode_rows, vocabularies


@dataclass(frozen=True)
class Shape:
    """The shape of a batch. All utterances have the same length.

    Attributes:
        name: ``longest`` or ``widest``.
        utterances: number of utterances.
        seconds: length of an utterance.
        tokens: number of tokens of an utterance.
        place: the manifest and the line of the utterance with this length.
    """

    name: str
    utterances: int
    seconds: float
    tokens: int
    place: str


def largest_batches(cfg: Any) -> list[Shape]:
    """Return the longest and the widest batch of the local manifests of a composed recipe.

    For equal tokens in a row, CTC needs a blank between them. The number of tokens includes these blanks.

    Raises:
        UserError: the recipe has no local training data with text, or no vocabulary.
    """
    split, known = read_split(cfg, "train_ds"), vocabularies(cfg)
    rows = [row for row in split.rows if row.seconds] if split is not None else []
    if not rows or not known:
        raise UserError(
            "--dry-run needs local manifests with durations and a vocabulary; set model.train_ds.manifest_filepath, "
            "and model.tokenizer.dir or model.labels"
        )
    first = next(iter(known))
    spoken = [row if row.language in known else row._replace(language=first) for row in rows]
    tokens = [each.frames for each in encode_rows(spoken, known)]
    longest = max(range(len(rows)), key=lambda row: rows[row].seconds)
    widest = max(range(len(rows)), key=lambda row: (tokens[row], rows[row].seconds))
    return [
        Shape(name, utterances_of_batch(cfg, rows[row].seconds), rows[row].seconds, tokens[row], rows[row].place)
        for name, row in (("longest", longest), ("widest", widest))
    ]


def sample_rate(cfg: Any) -> int:
    """Return the sample rate of the model in Hz."""
    return int(value(cfg, "model.sample_rate", 16000))
