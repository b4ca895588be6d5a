"""The confidence of words, from the confidence of tokens that NeMo's greedy decoders compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.decoding.strategy import decoding_of, kind_of
from nemo_squeezeformer.transcription.decoding.token_ids import has_subwords
from nemo_squeezeformer.transcription.word_times import WordTimes

DIGITS = 3  # of the numbers in a row
SPACE = "\u2581"  # SentencePiece's token of a space


def divide_into_words(model: Any) -> None:
    """Let the decoder of a model with sub-word units compute the confidence of words with ``of_words``.

    NeMo's own function stops with an error at a token without a text, for example ``</s>``, and at a part of a
    character, for example the byte ``<0xE2>``.

    Args:
        model: a model after ``set_decoding`` with ``confidence``.

    Raises:
        UserError: the tokens of the model do not show where words begin.
    """
    from nemo.collections.common.tokenizers import AggregateTokenizer, SentencePieceTokenizer

    if not has_subwords(model):
        return
    if not isinstance(model.tokenizer, (SentencePieceTokenizer, AggregateTokenizer)):
        raise UserError(
            f"--confidence: NeMo gives no confidence for a tokenizer of class {type(model.tokenizer).__name__}; "
            "leave out --confidence"
        )
    decoding = decoding_of(model)
    decoding._aggregate_token_confidence_subwords_sentencepiece = partial(of_words, decoding)


def of_words(decoding: Any, words: Sequence[str], confidences: Sequence[Any], tokens: Sequence[Any]) -> list[Any]:
    """Return the confidence of each word of a model with sub-word units.

    Args:
        decoding: NeMo's object for the decoder.
        words: not used; NeMo's caller gives the words.
        confidences: the confidence of each token.
        tokens: the ids of the tokens.
    """
    ids = [int(token) for token in tokens]
    texts = [decoding.decode_ids_to_str([token]) for token in ids]
    pieces = decoding.decode_ids_to_tokens(ids)
    inside = [*(piece == text for piece, text in zip(pieces, texts)), False]  # tokens that do not begin a word
    # Control tokens have no text. A space in a token of its own belongs to the word after the space.
    used = [i for i, text in enumerate(texts) if text or (pieces[i] == SPACE and inside[i + 1])]
    spans = WordTimes(decoding.decode_ids_to_str)
    spans.extend([(ids[i], place) for place, i in enumerate(used)])
    ends = [span.end for span in spans.words]
    return [
        decoding._aggregate_confidence([confidences[i] for i in used[start:end]])
        for start, end in zip([0, *ends], ends)
    ]


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
        model: a model after ``divide_into_words``.
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
