"""Recordings whose sample rate is too low for the mel bands of the model. NeMo resamples them without a message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nemo_squeezeformer.files.manifests import Utterance


def find(utterances: Sequence[Utterance], model_rate: int, highest: float | None, name: str) -> Iterator[str]:
    """Yield a message if recordings have no content in the upper mel bands of the model.

    Args:
        utterances: the rows of a split.
        model_rate: the sample rate of the model in Hz.
        highest: the highest frequency of the mel bands in Hz; None for half of ``model_rate``.
        name: the name of the split.
    """
    needed = 2 * (highest or model_rate / 2)
    low = [each for each in utterances if each.rate and each.rate < needed]
    if not low:
        return
    rates = ", ".join(f"{rate} Hz" for rate in sorted(Counter(each.rate for each in low)))
    yield (
        f"{len(low):,} of {len(utterances):,} recordings of the {name} data have a sample rate of {rates} (the first: "
        f"{low[0].audio}), and the model has mel bands up to {needed / 2:g} Hz. NeMo resamples the recordings, and the "
        "upper mel bands stay empty. This does no harm if the recordings that the model will transcribe have the same "
        "rate; otherwise mix recordings of both rates in the training data"
    )
