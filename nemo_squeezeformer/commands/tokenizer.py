"""`nemo-squeezeformer tokenizer`: write a SentencePiece tokenizer as a folder for NeMo's ``tokenizer.dir``."""

import argparse

from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.commands.options import positive
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.tokenizers import lay_out_tokenizer, train_tokenizer

HELP = "train a tokenizer on the text of manifests, or convert a trained tokenizer to the folder that NeMo reads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifest",
        nargs="+",
        help="NeMo manifests (JSON lines with text, also .gz) or plain text files (.txt) with one utterance on each "
        "line; or one SentencePiece model (.model), which is not changed",
    )
    parser.add_argument(
        "--vocab-size",
        type=positive,
        metavar="N",
        help="number of pieces; 128 to 256 suit a subsampling factor of 4",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write, with tokenizer.model, tokenizer.vocab and vocab.txt",
    )
    parser.add_argument(
        "--type", choices=("unigram", "bpe"), default="unigram", help="kind of SentencePiece model (default: unigram)"
    )
    parser.add_argument(
        "--lower-case",
        action="store_true",
        help="convert text to lower case, in this training and whenever the tokenizer is used",
    )
    parser.add_argument(
        "--start-end-pad",
        action="store_true",
        help="include the pieces <s>, </s> and <pad>, which Transformer decoders need (squeezeformer_transformer)",
    )
    parser.add_argument(
        "--append",
        action="append",
        default=[],
        metavar="PIECE",
        help="add PIECE at the end of the vocabulary and never split PIECE in the text; repeat the option for more "
        "pieces (squeezeformer_*_eou: --append '<EOU>' --append '<EOB>')",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing output folder")


def main(args: argparse.Namespace) -> int:
    if any(path.endswith(".model") for path in args.manifest):
        pieces = _lay_out(args)
    elif args.vocab_size is None:
        raise UserError("--vocab-size N is needed to train a tokenizer; 128 to 256 suit a subsampling factor of 4")
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
            say,
        )
    print(f"{args.output}: {pieces} pieces; train with model.tokenizer.dir={args.output}")
    return 0


def _lay_out(args: argparse.Namespace) -> int:
    if len(args.manifest) > 1:
        raise UserError(
            f"{' '.join(args.manifest)}: a SentencePiece model cannot be combined with other files; give only the model"
        )
    if args.vocab_size or args.lower_case or args.start_end_pad or args.append or args.type != "unigram":
        raise UserError(
            f"{args.manifest[0]} is already trained; leave out --vocab-size, --type, --lower-case, --start-end-pad and "
            "--append"
        )
    return lay_out_tokenizer(args.manifest[0], args.output, args.force)
