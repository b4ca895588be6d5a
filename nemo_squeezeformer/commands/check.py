"""`nemo-squeezeformer check`: print the content of manifests, and the problems that training would have with them."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from nemo_squeezeformer.commands.options import describe
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_paths import expanded

HELP = "check manifests and their recordings before training"
DESCRIPTION = """\
Print the durations, sample rates, characters and levels of the recordings of manifests, and the problems that training
would have with them. The first manifest is the training data. It can name several files, for example
'train_{0..9}.json'. The other manifests are validation and test data.

With --model or --recipe, the text is compared with the vocabulary and with the number of frames of the model, and the
recordings with the features. The command does not load NeMo, except for the name of a pretrained model. The exit status
is 1 if a problem is found.

examples:
  nemo-squeezeformer check train.json dev.json
  nemo-squeezeformer check train.json dev.json --model model.nemo
  nemo-squeezeformer check train.json dev.json --recipe squeezeformer_ctc_bpe model.tokenizer.dir=tokenizer --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add = parser.add_argument
    add("manifests", nargs="+", metavar="MANIFEST", help="NeMo manifest; the first is the training data")
    add("overrides", nargs="*", default=[], metavar="key=value", help="Hydra overrides of --recipe or --model")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--model", metavar="MODEL", help=".nemo file, or name of a pretrained model")
    chosen.add_argument("--recipe", metavar="RECIPE", help="recipe of this package, or YAML file")
    add("--skip-samples", action="store_true", help="read only the headers of the audio files")
    add("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the report. Return 1 if a problem was found, otherwise 0.

    Raises:
        UserError: a manifest is missing, empty or not text, the recipe or the model does not exist, or the recipe
            lacks a tokenizer.
    """
    from nemo_squeezeformer.training.data_checks import findings
    from nemo_squeezeformer.training.data_checks.manifest_report import report

    words = [*args.manifests, *args.overrides]
    overrides = [word for word in words if "=" in word and not os.path.exists(word)]
    groups = [expanded(word) for word in words if word not in overrides]
    if not groups:
        raise UserError("no manifest is given; give the path of a NeMo manifest")
    if overrides and not (args.model or args.recipe):
        raise UserError(f"{' '.join(overrides)}: overrides change a recipe; add --recipe RECIPE or --model MODEL")
    training, others = list(groups[0]), [path for group in groups[1:] for path in group]
    with tempfile.TemporaryDirectory(prefix="nemo-squeezeformer-") as folder:
        recipe = _recipe(args, training, others, overrides, Path(folder)) if args.model or args.recipe else None
        read = [report(path, samples=not args.skip_samples) for path in (*training, *others)]
        found = [message for made, _ in read for message in findings.of_manifest(made)]
        if recipe:
            cfg, differences = recipe
            rows = [row for _, part in read[: len(training)] for row in part]
            found += [*differences, *findings.compared(findings.with_model(cfg, rows))]
        else:
            found += findings.compared(findings.of_sets(training, others))
        # The tokenizer of a model is in the temporary folder, and the user knows only the model.
        found = [re.sub(rf"\S+={re.escape(folder)}[^\s:;,]*", str(args.model), message) for message in found]
    if args.json:
        print(json.dumps({"manifests": [made for made, _ in read], "found": found}, indent=1, ensure_ascii=False))
    else:
        print("\n".join([*(line for made, _ in read for line in lines(made)), *problems(found)]))
    return 1 if found else 0


def lines(made: dict[str, Any]) -> list[str]:
    """Return the report about a manifest as lines of a table."""
    seconds, text = made["seconds"], made["text"]
    rows = [
        ("rows", f"{made['rows']:,}, of these {made['unusable']:,} cannot be used" if made["unusable"] else None),
        ("rows", f"{made['rows']:,}" if not made["unusable"] else None),
        ("hours", f"{made['hours']:.2f}"),
        ("seconds", f"{seconds['shortest']} to {seconds['longest']}, median {seconds['median']}" if seconds else "-"),
        ("sample rates", ", ".join(f"{rate} Hz: {number:,}" for rate, number in made["sample_rates"].items())),
        ("channels", ", ".join(f"{each}: {number:,}" for each, number in made["channels"].items())),
        ("words", f"{text['words']:,}; {text['different']:,} different texts"),
        ("characters", f"{len(text['characters'])}: {text['characters']!r}"),
        ("rare characters", repr(text["rare_characters"]) if text["rare_characters"] else None),
        ("characters / s", text["characters_per_second"]),
        *((kind, made[kind]["files"] if kind in made else None) for kind in ("silent", "clipped")),
    ]
    return [made["manifest"], *(f"  {name:<16}{value}" for name, value in rows if value is not None)]


def problems(found: list[str]) -> list[str]:
    """Return the problems as lines."""
    return [f"found {len(found)}:", *(f"  - {message}" for message in found)] if found else ["no problem was found"]


def _recipe(
    args: argparse.Namespace, training: list[str], others: list[str], overrides: list[str], folder: Path
) -> tuple[Any, list[str]]:
    """Return the composed recipe with the manifests as its data, and how its features differ from a model's.

    Raises:
        UserError: the recipe or the model does not exist, or the recipe lacks a tokenizer.
    """
    from nemo_squeezeformer.commands.training import start_from
    from nemo_squeezeformer.training import recipes

    splits = {"train_ds": training, "validation_ds": others or training}
    data = [f"model.{split}.manifest_filepath=[{','.join(map(_quoted, paths))}]" for split, paths in splits.items()]
    if args.model:
        cfg, words, differences = start_from.recipe_of(args.model, [*data, *overrides], folder, "--model")
        print(words, file=sys.stderr)
    else:
        cfg, differences = recipes.compose(args.recipe, [*data, *overrides]), []
    recipes.check_tokenizers(cfg)
    if not others:
        cfg.model.validation_ds.manifest_filepath = None
    return cfg, differences


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
