"""Tokenizer folders as NeMo's ``tokenizer.dir`` names them: of text, or of a SentencePiece model that is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import strangers, written_whole
from nemo_squeezeformer.files.sentencepiece_model import append_pieces, read_model, train_model

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
) -> int:
    """Write a tokenizer folder, whole or not at all, and return how many pieces it has.

    They are exactly ``vocab_size``, and after them those of ``append``, in that order.

    Raises:
        UserError: a manifest is missing or without text, the vocabulary is too large or too small for the text (the
            message names the bound), or the folder exists and ``force`` is not set.
    """
    target = Path(output).expanduser()
    _refuse_folder(target, output, force)
    sentences = [text for path in manifests for text in _texts(path)]
    if not sentences:
        raise UserError(f"there is no text in {', '.join(manifests)}; training needs a non-empty `text` in each row")
    return _write(append_pieces(train_model(sentences, vocab_size, kind, lower_case, start_end_pad), append), target)


def lay_out_tokenizer(model: str, output: str, force: bool = False) -> int:
    """Write the folder of a SentencePiece model that is trained, whole or not at all; how many pieces it has.

    Raises:
        UserError: the model cannot be read, or the folder exists and ``force`` is not set.
    """
    target = Path(output).expanduser()
    _refuse_folder(target, output, force)
    return _write(read_model(model)[0], target)


def write_folder(model: bytes, folder: Path) -> int:
    """Three files: the model, its pieces with scores, and the pieces as NeMo's vocab.txt spells them."""
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


def _refuse_folder(target: Path, output: str, force: bool) -> None:
    """Raises UserError where ``target`` exists and may not be replaced; it was given as ``output``."""
    if target.exists() and not force:
        raise UserError(f"--output {output} exists; give another folder, or --force to replace it")
    if target.exists() and (not target.is_dir() or strangers(target, FILES)):
        raise UserError(
            f"--output {output} is not a tokenizer folder, so --force will not replace it; give another folder"
        )


def _write(model: bytes, target: Path) -> int:
    """Makes the folder, whole or not at all; how many pieces it has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as folder:
        folder.mkdir()
        return write_folder(model, folder)


def _texts(path: str) -> Iterator[str]:
    number = 0
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007  named in the error below
                text = line if path.endswith(".txt") or not line.strip() else json.loads(line).get("text", "")
                if text.strip():
                    yield text.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest {path} cannot be read: {error}") from error
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"manifest {path}, line {number}: not a JSON object ({error}); plain text files end in .txt"
        ) from error
