"""The options of `transcribe` for the decoding: beam search, a language model, hotwords and confidence."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.commands.options import number, positive
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.training_text import read_sentences

if TYPE_CHECKING:
    from nemo_squeezeformer.transcription.decoding.strategy import Decoding

LM_WEIGHT, BOOST_WEIGHT = 0.3, 0.5  # docs/decode.md shows the word error rates with several weights

LONGEST_PHRASE = 1000  # characters; NeMo needs about a kilobyte and some time for each token of a phrase
# The options that change the rows.
ON_WHICH_ROWS_DEPEND = ("--beam", "--lm", "--lm-weight", "--boost", "--boost-weight", "--confidence")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add the options. After parsing, call ``check``."""
    add = parser.add_argument
    add(
        "--beam",
        type=positive,
        metavar="N",
        help="beam search that keeps the N best texts; 1 is greedy decoding (default: the model's own strategy)",
    )
    add(
        "--lm",
        metavar="FILE",
        help="n-gram language model of the model's tokens (.arpa or .nemo), made with `nemo-squeezeformer lm`",
    )
    add("--lm-weight", type=_weight, metavar="W", help=f"weight of the language model (default: {LM_WEIGHT})")
    add(
        "--boost",
        action="append",
        default=[],
        metavar="PHRASE|FILE.txt",
        help="a word or phrase to find more often, or a text file with a phrase on each line; repeat the option for "
        "more phrases",
    )
    add("--boost-weight", type=_weight, metavar="W", help=f"weight of the phrases (default: {BOOST_WEIGHT})")
    add(
        "--confidence", action="store_true", help="add word_confidence to each row: the words, with numbers from 0 to 1"
    )


def check(args: argparse.Namespace) -> None:
    """Check the values without NeMo, replace files of phrases by their phrases, and fill in the default weights.

    Raises:
        UserError: a file is missing or has the wrong form, or a weight is passed without --lm or --boost.
    """
    for weight, option in (("lm_weight", "lm"), ("boost_weight", "boost")):
        if vars(args)[weight] is not None and not vars(args)[option]:
            name = f"--{weight.replace('_', '-')}"
            raise UserError(f"{name} needs --{option}; pass --{option}, or leave out {name}")
    if args.beam and args.beam > 1 and args.confidence:
        raise UserError("--confidence: NeMo's beam search gives no confidence; leave out --beam")
    if args.timestamps and args.format == "txt":
        raise UserError("--timestamps: --format txt has no times; pass --format jsonl, srt, vtt or ctm")
    if args.confidence and args.format != "jsonl":
        raise UserError(f"--confidence: --format {args.format} has no confidence; pass --format jsonl")
    if args.lm:
        from nemo_squeezeformer.transcription.decoding import ngram_file

        ngram_file.check_path(args.lm)
        args.lm_weight = LM_WEIGHT if args.lm_weight is None else args.lm_weight
    args.boost = _phrases(args.boost)
    if args.boost:
        args.boost_weight = BOOST_WEIGHT if args.boost_weight is None else args.boost_weight


def requested(args: argparse.Namespace) -> Decoding:
    """Return the decoding that the checked options request."""
    from nemo_squeezeformer.transcription.decoding.strategy import Decoding

    return Decoding(
        args.beam, args.lm, args.lm_weight or 0.0, tuple(args.boost), args.boost_weight or 0.0, args.confidence
    )


def set_decoding(model: Any, config: Any, args: argparse.Namespace) -> None:
    """Set the requested decoding of the model.

    Args:
        model: a NeMo ASR model with its final decoder, and with timestamps if they are requested.
        config: the result of ``hypotheses.decoding_config``.

    Raises:
        UserError: NeMo has no decoder with these features, or the files do not fit the model.
    """
    from nemo_squeezeformer.transcription.decoding import confidence, strategy

    strategy.set_decoding(model, requested(args), args.timestamps)
    if args.confidence:
        confidence.divide_into_words(model)
        config.return_hypotheses = True


def _phrases(values: Sequence[str]) -> list[str]:
    phrases: dict[str, None] = {}  # without repeated phrases, in the given order
    for value in values:
        found = read_sentences([value])[0] if value.lower().endswith(".txt") else [value.strip()]
        if not all(found):
            raise UserError("--boost: a phrase is empty; pass a word or a phrase")
        if len(longest := max(found, key=len)) > LONGEST_PHRASE:
            raise UserError(
                f"--boost {longest[:40]}...: a phrase has {len(longest):,} characters, and a phrase has at most "
                f"{LONGEST_PHRASE:,}; pass a few words, or a text file with a phrase on each line"
            )
        phrases.update(dict.fromkeys(found))
    return list(phrases)


def _weight(text: str) -> float:
    weight = number(text)
    if not 0 <= weight < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0")
    return weight
