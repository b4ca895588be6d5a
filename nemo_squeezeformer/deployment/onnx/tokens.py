"""The description of a model's decoder and tokens for the metadata of its ONNX files."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer.deployment.token_text import SPACE
from nemo_squeezeformer.errors import UserError


def tokens_of(model: Any, transducer: bool) -> dict[str, Any]:
    """Return the fields of the metadata that describe the decoder and the tokens. See ``onnx_stream.metadata``.

    The fields are ``decoder``, ``blank``, ``tokens``, ``units``, ``leading_spaces`` and ``transducer``. The field
    ``transducer`` does not contain the description of the graph, which ``describe_graphs`` returns.

    Raises:
        UserError: The metadata cannot describe the tokens or the transducer.
    """
    found = vocabulary(model, transducer)
    found |= {"decoder": "ctc", "blank": len(found["tokens"]), "transducer": None}
    if not transducer:
        return found
    if getattr(model.joint, "num_extra_outputs", 0):
        raise UserError(
            "the metadata cannot describe transducers that predict durations (TDT, multi-blank); for TDT, pass --for "
            "sherpa-onnx or --for onnx-asr with --offline"
        )
    check_network(model, "NeMo's export")
    return found | {
        "decoder": "transducer",
        "blank": model.decoder.blank_idx,
        "transducer": {"max_symbols": max_symbols(model)},
    }


def check_network(model: Any, runtime: str) -> None:
    """Raise UserError if the prediction network of a transducer cannot be exported to ``runtime``."""
    if not hasattr(model.decoder, "pred_rnn_layers"):
        raise UserError(f"{type(model.decoder).__name__}: {runtime} supports only prediction networks with LSTMs")
    if not model.decoder.blank_as_pad:
        raise UserError(f"decoder.blank_as_pad=False: {runtime} needs a prediction network with an input for the blank")


def check_durations(model: Any, runtime: str) -> None:
    """Raise UserError if the durations of a TDT transducer are not the numbers from 0 on, which the runtimes expect."""
    number, durations = model.joint.num_extra_outputs, list(model.cfg.decoding.get("durations", None) or [])
    if durations != list(range(number)):
        raise UserError(
            f"{runtime} runs TDT transducers only with the durations 0, 1, 2 and so on without gaps, and this model "
            f"has durations={durations}"
        )


def max_symbols(model: Any) -> int | None:
    """Return the largest number of tokens in a frame of a transducer, or None if the number has no limit."""
    greedy = model.cfg.decoding.get("greedy", {}) or {}
    return greedy.get("max_symbols", None) or greedy.get("max_symbols_per_step", None)


def vocabulary(model: Any, transducer: bool) -> dict[str, Any]:
    """Return the fields ``tokens``, ``units`` and ``leading_spaces``.

    Raises:
        UserError: The model has another tokenizer than SentencePiece.
    """
    return pieces(model.tokenizer) if hasattr(model, "tokenizer") else characters(model, transducer)


def characters(model: Any, transducer: bool) -> dict[str, Any]:
    """Return the description of the tokens of a model without a tokenizer. The tokens are the labels of the model."""
    labelled = model.joint if transducer else getattr(model, "ctc_decoder", model.decoder)
    return {"units": "characters", "tokens": list(labelled.vocabulary), "leading_spaces": "none"}


def pieces(tokenizer: Any) -> dict[str, Any]:
    """Return the description of the tokens of a SentencePiece tokenizer.

    Raises:
        UserError: The tokenizer is not a SentencePiece tokenizer.
    """
    processor: Any = getattr(tokenizer, "tokenizer", None)
    if not hasattr(processor, "id_to_piece"):
        raise UserError(f"{type(tokenizer).__name__}: the metadata can describe only SentencePiece tokenizers")

    def text(i: int) -> str:
        if processor.is_unknown(i):
            return " \u2047 "  # the text to which SentencePiece decodes an unknown token
        return "" if processor.is_control(i) else processor.id_to_piece(i)

    tokens = [text(i) for i in range(tokenizer.vocab_size)]
    begins = [i for i, token in enumerate(tokens) if token.startswith(SPACE)]
    # Decoding two tokens that are only a space shows whether SentencePiece drops no leading space, one leading space or
    # all leading spaces. If the vocabulary has no token that is only a space, at most the first token of a text can
    # lose a space. Then decoding a single token shows whether SentencePiece drops this space.
    begins = [i for i in begins if tokens[i] == SPACE][:1] * 2 or begins[:1]
    lost = sum(len(tokens[i]) for i in begins) - len(processor.decode(begins))
    drops = "all" if lost == len(begins) else "one" if lost else "none"
    return {"units": "sentencepiece", "tokens": tokens, "leading_spaces": drops}
