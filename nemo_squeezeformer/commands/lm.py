"""`nemo-squeezeformer lm`: make an n-gram language model of the tokens of a model, for ``transcribe --lm``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nemo_squeezeformer.commands.inputs import check_model, quiet, say
from nemo_squeezeformer.commands.options import add_model, add_verbose, describe, whole_number
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import refuse_existing, require_folder, written_whole
from nemo_squeezeformer.files.training_text import read_sentences

HELP = "make an n-gram language model from text, for transcribe --lm"
DESCRIPTION = """\
Make a language model that says how likely a token is after the tokens before it. The tokens are the tokens of MODEL, so
the language model works only with models that have the same tokenizer or the same characters.

The probabilities are estimated with interpolated modified Kneser-Ney smoothing. No other program is needed."""
SUFFIXES = (".arpa", ".nemo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add(
        "text",
        metavar="TEXT",
        nargs="+",
        help="manifests (JSON lines with text, also .gz) or plain text files (.txt) with one sentence on each line",
    )
    add("--order", type=_order, default=4, metavar="N", help="tokens of the longest n-grams (default: %(default)s)")
    add(
        "--output",
        "-o",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: FILE.arpa is text that other programs read, FILE.nemo is loaded faster",
    )
    add("--force", action="store_true", help="overwrite FILE if it exists")
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    """Write the language model and return 0.

    Raises:
        UserError: FILE has another suffix or exists, a text cannot be read, or the model is neither a CTC model nor a
            transducer. These checks come first, except for the check of the model.
    """
    if args.output.suffix not in SUFFIXES:
        raise UserError(f"--output {args.output}: the name must end with .arpa or .nemo; choose a name like lm.arpa")
    if args.output.resolve() in {Path(name).resolve() for name in (args.model, *args.text)}:
        raise UserError(f"--output {args.output} is also an input; choose another name")
    require_folder(args.output, f"--output {args.output}")
    refuse_existing((args.output,), args.force)
    check_model(args.model)
    sentences, notices = read_sentences(args.text)
    with quiet(args.verbose):
        import torch

        from nemo_squeezeformer.transcription.decoding import strategy, token_ids
        from nemo_squeezeformer.transcription.decoding.kneser_ney import estimate
        from nemo_squeezeformer.transcription.models import restore

        model = restore(args.model, torch.device("cpu"), args.verbose)
        strategy.require_ctc_or_transducer(model, str(args.model), "give a model that transcribes")
        found = [token_ids.ids_of(model, sentence) for sentence in sentences]
        orders = estimate([ids for ids, _ in found], token_ids.vocabulary_size(model), args.order)
        _write(orders, token_ids.vocabulary_size(model), args.output)
    for notice in [*notices, *_unknown([part for _, part in found if part], len(found))]:
        say(notice)
    if len(orders) < args.order:
        say(f"the longest sentence has {len(orders) - 2} tokens, so the longest n-grams have {len(orders)} tokens")
    counts = ", ".join(f"{len(order.symbols):,} {n}-grams" for n, order in enumerate(orders, start=1))
    print(f"{args.output}: {counts} from {len(sentences):,} sentences; transcribe with --lm {args.output}")
    return 0


def _write(orders: Any, tokens: int, output: Path) -> None:
    from nemo_squeezeformer.transcription.decoding.arpa import write_arpa

    with written_whole(output) as path:
        if output.suffix == ".arpa":
            write_arpa(orders, tokens, path)
            return
        import tempfile

        from nemo.collections.asr.parts.submodules.ngram_lm import NGramGPULanguageModel

        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder, "lm.arpa")
            write_arpa(orders, tokens, text)
            NGramGPULanguageModel.from_file(text, tokens).save_to(str(path))


def _unknown(parts: list[str], total: int) -> list[str]:
    if not parts:
        return []
    return [
        f"the model has no token for parts of {len(parts):,} of {total:,} sentences, for example {parts[0]!r}; write "
        "the text in the same way as the training transcripts"
    ]


def _order(text: str) -> int:
    order = whole_number(text)
    if not 2 <= order <= 10:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 2 to 10")
    return order
