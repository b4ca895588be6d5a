"""The tokens of a model: their number, and the tokens of a text."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer.errors import UserError


def vocabulary_size(model: Any) -> int:
    """Return the number of tokens of a CTC or transducer model, without the blank."""
    from nemo.collections.asr.models import EncDecRNNTModel

    return len(model.joint.vocabulary if isinstance(model, EncDecRNNTModel) else model.decoder.vocabulary)


def has_subwords(model: Any) -> bool:
    """Return True if the tokens of the model are sub-word units, and False if they are characters."""
    return getattr(model, "tokenizer", None) is not None


def ids_of(model: Any, text: str) -> tuple[list[int], str]:
    """Return the token ids of a text, and the first part of the text for which the model has no token.

    A model with characters has no ids for characters that are not in its vocabulary. A model with sub-word units has
    the id of ``<unk>``.

    Raises:
        UserError: the tokenizer of the model has several languages.
    """
    if not has_subwords(model):
        vocabulary = list(model.joint.vocabulary if hasattr(model, "joint") else model.decoder.vocabulary)
        numbers = {character: number for number, character in enumerate(vocabulary)}
        unknown = next((character for character in text if character not in numbers), "")
        return [numbers[character] for character in text if character in numbers], unknown
    from nemo.collections.common.tokenizers.aggregate_tokenizer import AggregateTokenizer

    tokenizer = model.tokenizer
    if isinstance(tokenizer, AggregateTokenizer):
        raise UserError(
            "the tokenizer of the model has several languages, and this command does not know the language of a text; "
            "use NeMo's scripts for this model"
        )
    ids = list(tokenizer.text_to_ids(text))
    unknown_id = getattr(tokenizer, "unk_id", None)
    return ids, _unknown(tokenizer, text) if unknown_id in ids else ""


def _unknown(tokenizer: Any, text: str) -> str:
    return next((word for word in text.split() if tokenizer.unk_id in tokenizer.text_to_ids(word)), text)
