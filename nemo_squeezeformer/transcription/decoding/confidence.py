"""The confidence of words, from the confidence that NeMo's greedy decoders compute."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.decoding.strategy import decoding_of, kind_of
from nemo_squeezeformer.transcription.decoding.token_ids import has_subwords

DIGITS = 3  # of the numbers in a row


def require_word_boundaries(model: Any) -> None:
    """Raise UserError if the tokens of the model do not show NeMo where words begin."""
    from nemo.collections.common.tokenizers import AggregateTokenizer, SentencePieceTokenizer

    if has_subwords(model) and not isinstance(model.tokenizer, (SentencePieceTokenizer, AggregateTokenizer)):
        raise UserError(
            f"--confidence: NeMo gives no confidence for a tokenizer of class {type(model.tokenizer).__name__}; "
            "leave out --confidence"
        )


def with_words(model: Any, batches: Iterator[list[Any]], timestamps: bool) -> Iterator[list[Any]]:
    """Yield the batches of ``hypotheses.decode``, and set ``word_confidence`` of each hypothesis to ``words_of``.

    NeMo's CTC decoders compute timestamps for the confidence. Without ``timestamps``, they are dropped.
    """
    for batch in batches:
        for result in batch:
            if not isinstance(result.best, str):
                result.best.word_confidence = words_of(model, result.best)
                result.best.timestamp = result.best.timestamp if timestamps else []
        yield batch


def words_of(model: Any, hypothesis: Any) -> list[dict[str, Any]]:
    """Return the words of a hypothesis with their confidence from 0 to 1.

    Args:
        model: a model after ``set_decoding`` with ``confidence``.
        hypothesis: NeMo's ``Hypothesis``.

    Raises:
        UserError: NeMo divides the text into other words.
    """
    if has_subwords(model):
        words = hypothesis.text.split()
        numbers = hypothesis.word_confidence or []
        if len(words) != len(numbers):
            raise UserError(
                f"--confidence: NeMo has {len(numbers)} numbers for the {len(words)} words of "
                f"{hypothesis.text[:80]!r}; leave out --confidence"
            )
    else:
        words, numbers = [], []
        for word, found in _words_of_characters(model, hypothesis):
            words.append(word)
            numbers.append(decoding_of(model)._aggregate_confidence(found))
    return [
        {"word": word, "confidence": round(min(max(float(number), 0.0), 1.0), DIGITS)}
        for word, number in zip(words, numbers)
    ]


def _words_of_characters(model: Any, hypothesis: Any) -> Iterator[tuple[str, list[float]]]:
    """Yield the words of a model with characters, each with the confidences of its characters.

    NeMo's own function fails for a CTC model, and for a text with two spaces in a row.
    """
    if kind_of(model) == "ctc":  # the field y_sequence can have log-probabilities
        characters = [item["char"] for item in hypothesis.timestamp["char"]]
    else:
        characters = decoding_of(model).decode_ids_to_tokens([int(token) for token in hypothesis.y_sequence])
    pairs = zip(characters, map(float, hypothesis.token_confidence))
    for is_space, word in groupby(pairs, key=lambda pair: pair[0] == " "):
        if not is_space:
            letters, confidences = zip(*word)
            yield "".join(letters), list(confidences)
