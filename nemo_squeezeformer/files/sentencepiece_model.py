"""SentencePiece models as bytes: read, trained, and given further pieces at their end."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError

BOUND = re.compile(r"set it to a value <= (\d+)")
REQUIRED = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


def read_model(path: str | Path) -> tuple[bytes, Any]:
    """A SentencePiece model as it is in the file, and its processor.

    Raises:
        UserError: it cannot be read, or is none.
    """
    import sentencepiece

    try:
        model = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"tokenizer {path} cannot be read: {error}") from error
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        number = pieces.get_piece_size()
    except RuntimeError as error:
        raise UserError(f"tokenizer {path} is not a SentencePiece model ({error})") from error
    if not number:
        raise UserError(f"tokenizer {path} is not a SentencePiece model: it has no pieces")
    return model, pieces


def train_model(sentences: Sequence[str], vocab_size: int, kind: str, lower_case: bool, start_end_pad: bool) -> bytes:
    """A model of the text of ``sentences``.

    The options are those of NeMo's own ``create_spt_model``, but a vocabulary that cannot be had is an error.

    Raises:
        UserError: the vocabulary is too large or too small for the text; it names the bound.
    """
    import sentencepiece

    longest = max(len(text.encode()) for text in sentences)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=kind,
            character_coverage=1.0,
            bos_id=1 if start_end_pad else -1,
            eos_id=2 if start_end_pad else -1,
            pad_id=3 if start_end_pad else -1,
            shuffle_input_sentence=True,
            remove_extra_whitespaces=False,
            max_sentence_length=max(4192, longest + 1),  # SentencePiece drops longer sentences, in silence
            minloglevel=2,
            normalization_rule_name="nmt_nfkc_cf" if lower_case else "nmt_nfkc",
        )
    except RuntimeError as error:
        problem = f"SentencePiece cannot train with --vocab-size {vocab_size} --type {kind}: {error}"
        if bound := BOUND.search(str(error)):
            problem = f"--vocab-size {vocab_size} is too large for this text; the largest that works is {bound[1]}"
        elif bound := REQUIRED.search(str(error)):
            problem = f"--vocab-size {vocab_size} is too small; the characters of the text alone need {bound[1]}"
        raise UserError(problem) from error
    return model.getvalue()


def append_pieces(model: bytes, pieces: Sequence[str]) -> bytes:
    """The model with ``pieces`` after its own.

    SentencePiece puts the user's pieces first when it trains; NeMo wants some of them last.

    Raises:
        UserError: the model has such a piece already.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    known = {processor.id_to_piece(i) for i in range(processor.get_piece_size())}
    if made := sorted(known & set(pieces)):
        raise UserError(f"--append {' '.join(made)}: the text has made this piece already; leave it out")
    # A repeated field of a protocol buffer goes on where it is written again: what is at the end is the last piece.
    return model + b"".join(map(_user_defined, pieces))


def _user_defined(piece: str) -> bytes:
    """A piece as field 1 of SentencePiece's ModelProto: its text, a score of 0 and the type USER_DEFINED.

    Written out, for the classes that sentencepiece has for it refuse the protobuf of NeMo 2.7.3.
    """
    text = piece.encode()
    message = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x04"
    return b"\x0a" + _varint(len(message)) + message


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
