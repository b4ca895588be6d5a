"""Tokenizer folders for NeMo's ``tokenizer.dir``, made from text or from an existing SentencePiece model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nemo_squeezeformer.files.outputs import refuse_folder, require_parents, written_whole
from nemo_squeezeformer.files.sentencepiece_model import append_pieces, check_appended, read_model, train_model
from nemo_squeezeformer.files.training_text import read_sentences

FILES = ("tokenizer.model", "tokenizer.vocab", "vocab.txt")


def train_tokenizer(
    manifests: Iterable[str],
    vocab_size: int,
    output: str,
    kind: str = "unigram",
    lower_case: bool = False,
    force: bool = False,
    start_end_pad: bool = False,
    append: Sequence[str] = (),
    notify: Callable[[str], object] = lambda notice: None,
) -> int:
    """Train a tokenizer, write the folder of the tokenizer and return the number of pieces.

    The tokenizer has exactly ``vocab_size`` pieces, followed by the pieces of ``append`` in the given order. The folder
    appears only when it is complete.

    Args:
        notify: a function that receives notices about the text, for example about rows without a text.

    Raises:
        UserError: a manifest is missing or has a bad row, the manifests have no text, the vocabulary is too large or
            too small for the text (the message names the limit), a piece of ``append`` is empty, has white space, is
            given twice or is in the vocabulary of the text, the folder exists and ``force`` is not set, or the folder
            cannot be created.
    """
    target = _target(output, force)
    check_appended(append)
    sentences, notices = read_sentences(manifests)
    for notice in notices:
        notify(notice)
    return _write(append_pieces(train_model(sentences, vocab_size, kind, lower_case, start_end_pad), append), target)


def lay_out_tokenizer(model: str, output: str, force: bool = False) -> int:
    """Write the folder of a trained SentencePiece model and return the number of pieces.

    The folder appears only when it is complete.

    Raises:
        UserError: the model cannot be read, the folder exists and ``force`` is not set, or the folder cannot be
            created.
    """
    target = _target(output, force)
    return _write(read_model(model)[0], target)


def write_folder(model: bytes, folder: Path) -> int:
    """Write the files of a tokenizer to ``folder`` and return the number of pieces.

    The files are the model, the pieces with scores, and the pieces in the spelling of NeMo's ``vocab.txt``.
    """
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [(tokenizer.id_to_piece(i), tokenizer.get_score(i)) for i in range(len(tokenizer))]
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer.vocab").write_text(
        "".join(f"{piece}\t{score:g}\n" for piece, score in pieces), encoding="utf-8"
    )
    words = [piece[1:] or piece if piece.startswith("▁") else f"##{piece}" for piece, _ in pieces if piece != "<unk>"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return len(pieces)


def _target(output: str, force: bool) -> Path:
    """Return the path of the folder to write, after the checks of the path."""
    target = Path(output).expanduser()
    refuse_folder(target, FILES, force)
    require_parents(target)
    return target


def _write(model: bytes, target: Path) -> int:
    """Write the complete folder ``target`` and return the number of pieces."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as folder:
        folder.mkdir()
        return write_folder(model, folder)
