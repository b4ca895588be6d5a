"""`nemo-squeezeformer info`: parameters, operations, frame rates, streaming and memory of a recipe or a model."""

from __future__ import annotations

import argparse
import json
import sys

from nemo_squeezeformer.commands.inputs import check_model, quiet
from nemo_squeezeformer.commands.options import add_verbose, describe, positive
from nemo_squeezeformer.errors import UserError

HELP = "say what a recipe or a model has and takes: parameters, operations, frame rates, latency, memory"
DESCRIPTION = """\
Of a recipe or YAML file with Hydra overrides, a .nemo file, or a pretrained model by its name. Nothing is computed, and
no data is read: a recipe needs neither manifests nor a tokenizer, without which its encoder alone is described. Of
NeMo's own encoders it says what they tell.
  nemo-squeezeformer info squeezeformer_ctc_bpe size=m
  nemo-squeezeformer info squeezeformer_ctc_bpe size=m "model.encoder.time_reduce_idx=[7,11]" \\
      "model.encoder.time_recovery_idx=[19,15]"
  nemo-squeezeformer info model.nemo --batch 32 --seconds 15 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add = parser.add_argument
    add(
        "model", metavar="CONFIG|MODEL", help="a recipe of ours, a YAML file, a .nemo file or a pretrained model's name"
    )
    add("overrides", nargs="*", metavar="key=value", help="Hydra overrides of a recipe: size=m")
    add("--seconds", type=_seconds, default=30.0, metavar="S", help="of audio in an utterance (default: 30)")
    add("--batch", type=positive, default=1, metavar="N", help="utterances, or streams, at once (default: 1)")
    add("--json", action="store_true", help="print one JSON object: bytes, milliseconds, 10^9 operations")
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    """0 when what there is to say has been printed.

    Raises:
        UserError: no such recipe or model, overrides of a model, a recipe whose encoder cannot be built.
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
                f"{' '.join(args.overrides)}: overrides change a recipe, and {args.model} is none; leave them out, or "
                "give a recipe of `nemo-squeezeformer train --list` or a path to a YAML file"
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
    number = float(text)
    if not 0 < number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0, and up to a day")
    return number
