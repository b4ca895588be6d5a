"""Functions that read and train SentencePiece models, and append pieces to a model. A model is passed as bytes."""

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
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")  # the first pieces with --start-end-pad


def read_model(path: str | Path) -> tuple[bytes, Any]:
    """Return the bytes of a SentencePiece model file, and a ``SentencePieceProcessor`` of the model.

    Raises:
        UserError: the file cannot be read, or is not a SentencePiece model.
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
    """Train a SentencePiece model on ``sentences`` and return the bytes of the model.

    The options are the same as in NeMo's ``create_spt_model``, but an impossible vocabulary size is an error.

    Raises:
        UserError: the vocabulary is too large or too small for the text. The message names the limit.
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
            max_sentence_length=max(4192, longest + 1),  # SentencePiece drops longer sentences without a warning
            minloglevel=2,
            normalization_rule_name="nmt_nfkc_cf" if lower_case else "nmt_nfkc",
        )
    except (RuntimeError, ValueError) as error:
        problem = f"SentencePiece cannot train with --vocab-size {vocab_size} --type {kind}: {error}"
        if bound := BOUND.search(str(error)):
            problem = f"--vocab-size {vocab_size} is too large for this text; the largest that works is {bound[1]}"
        elif bound := REQUIRED.search(str(error)):
            problem = f"--vocab-size {vocab_size} is too small; the characters of the text alone need {bound[1]}"
        elif start_end_pad and vocab_size <= len(SPECIAL):
            problem = (
                f"--vocab-size {vocab_size} is too small; with --start-end-pad, the pieces {' '.join(SPECIAL)} and the "
                "characters of the text need more"
            )
        raise UserError(problem) from error
    return model.getvalue()


def check_appended(pieces: Sequence[str]) -> None:
    """Raise UserError if a piece of ``append_pieces`` cannot be appended. The check needs no model."""
    shown = f"--append {' '.join(map(repr, pieces))}"
    if "" in pieces or len(set(pieces)) < len(pieces):
        raise UserError(f"{shown}: give each piece once, with at least one character")
    if any(character.isspace() for piece in pieces for character in piece):
        raise UserError(f"{shown}: a piece with white space is never found in a text; give pieces without white space")


def append_pieces(model: bytes, pieces: Sequence[str]) -> bytes:
    """Append ``pieces`` to the vocabulary of a SentencePiece model, and return the bytes of the new model.

    In training, SentencePiece puts user-defined pieces at the start of the vocabulary. NeMo needs some user-defined
    pieces at the end.

    Raises:
        UserError: the model already has one of the pieces, or a piece is empty, has white space or is given twice.
    """
    import sentencepiece

    check_appended(pieces)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    known = {processor.id_to_piece(i) for i in range(processor.get_piece_size())}
    if made := sorted(known & set(pieces)):
        raise UserError(
            f"--append {' '.join(made)}: the vocabulary of the text has this piece; remove the piece from --append"
        )
    # In a protocol buffer, the values of a repeated field can be appended at the end of the message.
    return model + b"".join(map(_user_defined, pieces))


def _user_defined(piece: str) -> bytes:
    """Return a user-defined piece as field 1 of SentencePiece's ModelProto: the text, a score of 0 and the type.

    The bytes are written directly, because the classes of sentencepiece do not work with the protobuf of NeMo 2.7.3.
    """
    text = piece.encode()
    message = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x04"
    return b"\x0a" + _varint(len(message)) + message


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
