"""`nemo-squeezeformer info`: print parameters, operations, frame rates, latency and memory of a recipe or a model."""

from __future__ import annotations

import argparse
import json
import sys

from nemo_squeezeformer.commands.inputs import check_model, quiet
from nemo_squeezeformer.commands.options import add_verbose, describe, number, positive
from nemo_squeezeformer.errors import UserError

HELP = "print parameters, operations, frame rates, latency and memory of a recipe or a model"
DESCRIPTION = """\
Print the parameters, operations, frame rates, latency and memory of a recipe or YAML file with Hydra overrides, of a
.nemo file, or of a pretrained model.

The command runs no network and reads no data. A recipe needs neither manifests nor a tokenizer. Without a tokenizer the
command describes only the encoder. For NeMo's own encoders some numbers may be unknown.

examples:
  nemo-squeezeformer info squeezeformer_ctc_bpe size=m
  nemo-squeezeformer info squeezeformer_ctc_bpe size=m "model.encoder.time_reduce_idx=[7,11]" \\
      "model.encoder.time_recovery_idx=[19,15]"
  nemo-squeezeformer info model.nemo --batch 32 --seconds 15 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add = parser.add_argument
    add(
        "model",
        metavar="CONFIG|MODEL",
        help="recipe of this package, YAML file, .nemo file, or name of a pretrained model",
    )
    add("overrides", nargs="*", metavar="key=value", help="Hydra overrides of a recipe, for example size=m")
    add("--seconds", type=_seconds, default=30.0, metavar="S", help="seconds of audio in an utterance (default: 30)")
    add("--batch", type=positive, default=1, metavar="N", help="number of utterances or streams at once (default: 1)")
    add(
        "--json", action="store_true", help="print one JSON object with the units byte, millisecond and 10^9 operations"
    )
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    """Print the report and return 0.

    Raises:
        UserError: the recipe or the model does not exist, overrides are given for a model, or the encoder of a recipe
            cannot be built.
    """
    stdout = sys.stdout
    with quiet(args.verbose):
        from nemo_squeezeformer.analysis import report_text as text
        from nemo_squeezeformer.analysis import source
        from nemo_squeezeformer.analysis.report import report

        if source.is_recipe(args.model):
            found = source.of_recipe(args.model, args.overrides)
        elif args.overrides:
            raise UserError(
                f"{' '.join(args.overrides)}: overrides change a recipe, but {args.model} is not a recipe; leave out "
                "the overrides, or give a recipe of `nemo-squeezeformer train --list` or a path to a YAML file"
            )
        else:
            check_model(args.model)
            found = source.of_model(args.model, args.verbose)
        made = report(found, args.seconds, args.batch)
    if args.json:
        print(json.dumps(made, indent=1, ensure_ascii=False), file=stdout)
    else:
        text.write(text.sections(made), stdout)
    return 0


def _seconds(text: str) -> float:
    seconds = number(text)
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of seconds above 0 and at most 86400 (a day)")
    return seconds
