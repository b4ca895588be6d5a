"""`nemo-squeezeformer tokenizer`: a SentencePiece tokenizer, of manifests or ready-made, as NeMo's tokenizer.dir."""

import argparse
import io
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import strangers, written_whole

HELP = "train a tokenizer from the text of manifests, or lay out one that is trained as NeMo wants it"
FILES = ("tokenizer.model", "tokenizer.vocab", "vocab.txt")
BOUND = re.compile(r"set it to a value <= (\d+)")
REQUIRED = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifest",
        nargs="+",
        help="NeMo manifests (JSON lines with text), or plain text files (.txt), one utterance a line; "
        "or one SentencePiece model (.model), which is taken as it is",
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="number of pieces; 128 to 256 suit four-fold subsampling",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder to make: tokenizer.model, tokenizer.vocab, vocab.txt"
    )
    parser.add_argument(
        "--type", choices=("unigram", "bpe"), default="unigram", help="kind of SentencePiece model (default: unigram)"
    )
    parser.add_argument(
        "--lower-case", action="store_true", help="fold case, in training and whenever the tokenizer is used"
    )
    parser.add_argument(
        "--start-end-pad",
        action="store_true",
        help="with pieces <s>, </s> and <pad>, which Transformer decoders need (squeezeformer_transformer)",
    )
    parser.add_argument(
        "--append",
        action="append",
        default=[],
        metavar="PIECE",
        help="a further piece at the end, taken from the text as it stands; again for more "
        "(squeezeformer_*_eou: --append '<EOU>' --append '<EOB>')",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing output folder")


def main(args: argparse.Namespace) -> int:
    if any(path.endswith(".model") for path in args.manifest):
        pieces = _lay_out(args)
    elif args.vocab_size is None:
        raise UserError("--vocab-size N is needed to train a tokenizer; 128 to 256 suit four-fold subsampling")
    else:
        pieces = train_tokenizer(
            args.manifest,
            args.vocab_size,
            args.output,
            args.type,
            args.lower_case,
            args.force,
            args.start_end_pad,
            args.append,
        )
    print(f"{args.output}: {pieces} pieces; train with model.tokenizer.dir={args.output}")
    return 0


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
    target = _target(output, force)
    sentences = [text for path in manifests for text in _texts(path)]
    if not sentences:
        raise UserError(f"there is no text in {', '.join(manifests)}; training needs a non-empty `text` in each row")
    return _write(_append(_train(sentences, vocab_size, kind, lower_case, start_end_pad), append), target)


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


def _lay_out(args: argparse.Namespace) -> int:
    if len(args.manifest) > 1:
        raise UserError(f"{' '.join(args.manifest)}: a SentencePiece model is taken as it is; give it alone")
    if args.vocab_size or args.lower_case or args.start_end_pad or args.append or args.type != "unigram":
        raise UserError(
            f"{args.manifest[0]} is trained already; leave out --vocab-size, --type, --lower-case, --start-end-pad and "
            "--append"
        )
    target = _target(args.output, args.force)
    return _write(read_model(args.manifest[0])[0], target)


def _target(output: str, force: bool) -> Path:
    """The folder to make. Raises UserError where it exists and may not be replaced."""
    target = Path(output).expanduser()
    if target.exists() and not force:
        raise UserError(f"--output {output} exists; give another folder, or --force to replace it")
    if target.exists() and (not target.is_dir() or strangers(target, FILES)):
        raise UserError(
            f"--output {output} is not a tokenizer folder, so --force will not replace it; give another folder"
        )
    return target


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


def _train(sentences: list[str], vocab_size: int, kind: str, lower_case: bool, start_end_pad: bool) -> bytes:
    """The options are those of NeMo's own ``create_spt_model``, but a vocabulary that cannot be had is an error."""
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


def _append(model: bytes, pieces: Sequence[str]) -> bytes:
    """SentencePiece puts the user's pieces first when it trains; NeMo wants some of them last."""
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
