"""The decoder of a model and the text of its tokens, for the metadata of its ONNX files."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer.errors import UserError

SPACE = "\u2581"  # SentencePiece's


def tokens_of(model: Any, transducer: bool) -> dict[str, Any]:
    """``decoder``, ``blank``, ``tokens``, ``units`` and ``transducer`` without its graph; see ``onnx_stream.metadata``.

    Raises:
        UserError: for tokens or a transducer that the metadata has no words for.
    """
    found = pieces(model.tokenizer) if hasattr(model, "tokenizer") else characters(model, transducer)
    found |= {"decoder": "ctc", "blank": len(found["tokens"]), "transducer": None}
    if not transducer:
        return found
    if getattr(model.joint, "num_extra_outputs", 0):
        raise UserError("transducers that predict durations (TDT, multi-blank) have no place in the metadata")
    if not hasattr(model.decoder, "pred_rnn_layers"):
        raise UserError(f"{type(model.decoder).__name__}: NeMo exports prediction networks of LSTMs alone")
    greedy = model.cfg.decoding.get("greedy", {})
    symbols = greedy.get("max_symbols", None) or greedy.get("max_symbols_per_step", None)
    return found | {
        "decoder": "transducer",
        "blank": model.decoder.blank_idx,
        "transducer": {"max_symbols": symbols},
    }


def characters(model: Any, transducer: bool) -> dict[str, Any]:
    """The labels of a model without a tokenizer."""
    labelled = model.joint if transducer else getattr(model, "ctc_decoder", model.decoder)
    return {"units": "characters", "tokens": list(labelled.vocabulary), "leading_spaces": "none"}


def pieces(tokenizer: Any) -> dict[str, Any]:
    """What each token of SentencePiece adds to a text.

    Raises:
        UserError: for another kind of tokenizer.
    """
    processor: Any = getattr(tokenizer, "tokenizer", None)
    if not hasattr(processor, "id_to_piece"):
        raise UserError(f"{type(tokenizer).__name__}: of tokenizers, the metadata has words for SentencePiece's alone")

    def text(i: int) -> str:
        if processor.is_unknown(i):
            return " \u2047 "  # as SentencePiece decodes it
        return "" if processor.is_control(i) else processor.id_to_piece(i)

    tokens = [text(i) for i in range(tokenizer.vocab_size)]
    begins = [i for i, token in enumerate(tokens) if token.startswith(SPACE)]
    # Two bare spaces tell most; where there is none, one token is all that can lose its own.
    begins = [i for i in begins if tokens[i] == SPACE][:1] * 2 or begins[:1]
    lost = sum(len(tokens[i]) for i in begins) - len(processor.decode(begins))
    drops = "all" if lost == len(begins) else "one" if lost else "none"
    return {"units": "sentencepiece", "tokens": tokens, "leading_spaces": drops}
