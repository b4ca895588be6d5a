"""`nemo-squeezeformer redundancy`: plot the similarity of neighboring frames after every block of NeMo ASR models."""

from __future__ import annotations

import argparse
import importlib.util
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer import __version__
from nemo_squeezeformer.commands import inputs
from nemo_squeezeformer.commands.inputs import check_device, check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import add_device, add_verbose, describe, positive
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.files.outputs import all_written_whole, refuse_existing, require_folder
from nemo_squeezeformer.process import extras

if TYPE_CHECKING:
    from nemo_squeezeformer.analysis.redundancy_plot import Curves
    from nemo_squeezeformer.transcription.speech import Sound

HELP = "plot the similarity of neighboring frames after every block of ASR models"
DESCRIPTION = """\
Measure the mean cosine similarity of two frames at a distance of 1, 2, 3 or 4 frames, after every block of the encoder.
The mean is over all pairs of valid frames of the utterances. This measurement led to the temporal U-Net of
Squeezeformer.

The models may be any NeMo ASR models whose encoder has encoder.layers, for example Conformer, FastConformer and
Squeezeformer. One figure shows all models.

OUT.png is the figure. OUT.csv is in the same folder. It contains the numbers, the names of the data, and the versions
of the software."""
KINDS = (".png", ".pdf", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help=".nemo files or names of pretrained models")
    add("--data", metavar="INPUT", nargs="+", required=True, help="manifests, audio files or folders")
    add("--output", "-o", metavar="OUT.png", type=Path, required=True, help="file to write: .png, .pdf or .svg")
    add(
        "--utterances",
        type=positive,
        default=100,
        metavar="N",
        help="number of utterances to use; the random choice is the same in every run "
        "(default: %(default)s, as in the paper)",
    )
    add(
        "--untrained",
        action="store_true",
        help="also measure each encoder with new random weights, and draw the result as a dashed line",
    )
    add("--force", action="store_true", help="overwrite existing files")
    add_device(parser)
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    """Write the figure and the table, print the names of the two files, and return 0.

    Raises:
        UserError: OUT exists or has an unknown extension, matplotlib is missing, or a model or the data do not exist.
            The command checks these cases first. A later check fails if a model cannot be loaded, or if the encoder of
            a model has no blocks.
    """
    paths = _check_output(args.output, args.force)
    for name in args.models:
        check_model(name)
    check_device(args.device)
    found = inputs.utterances(args.data)
    chosen = random.Random(0).sample(found, min(args.utterances, len(found)))
    seconds = sum(utterance.duration for utterance in chosen)
    drawn = f"{len(chosen)} of {len(found)} utterances, {seconds:.0f} s"
    say(drawn)
    with quiet(args.verbose):
        from nemo_squeezeformer.analysis.redundancy_plot import figure
        from nemo_squeezeformer.analysis.redundancy_table import table

        device = chosen_device(args.device)
        curves: list[Curves] = []
        data = " ".join(str(Path(Path(name).absolute().parent.name, Path(name).name)) for name in args.data)
        conditions = [f"{drawn}, of {data}", _versions(str(device))]
        for name, label in zip(args.models, labels(args.models)):
            measured, condition = _measure(name, label, chosen, device, args)
            curves += measured
            conditions.append(condition)
        picture = figure(curves, f"Similarity of two frames after each block ({drawn})", args.output.suffix[1:])
    numbers = table(curves, conditions)
    with all_written_whole(args.output.parent) as folder:
        (folder / paths[0].name).write_bytes(picture)
        (folder / paths[1].name).write_text(numbers, encoding="utf-8", newline="")
    for path in paths:
        print(path)
    return 0


def _check_output(output: Path, force: bool) -> list[Path]:
    if output.suffix not in KINDS:
        raise UserError(
            f"--output {output}: give a name that ends in {', '.join(KINDS)}; the .csv file has the same name"
        )
    require_folder(output, f"--output {output}")
    paths = [output, output.with_suffix(".csv")]
    refuse_existing(paths, force)
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"matplotlib, which draws the figure, is not installed; run: {extras.install('plots')}")
    return paths


def labels(names: Sequence[str]) -> list[str]:
    """Return a label for each model: the name of the model file, or the given path if two files have the same name."""
    stems = [Path(name).stem if Path(name).suffix == ".nemo" else name for name in names]
    count = Counter(stems)
    return [stem if count[stem] == 1 else name for stem, name in zip(stems, names)]


def _versions(device: str) -> str:
    import nemo
    import torch

    ours = f"nemo-squeezeformer {__version__}"
    return f"{ours}, NeMo {nemo.__version__}, torch {torch.__version__}, on {device}"


def _measure(
    name: str, label: str, utterances: Sequence[Utterance], device: Any, args: argparse.Namespace
) -> tuple[list[Curves], str]:
    """Return the curves of a model, and a line that describes the model."""
    from tqdm import tqdm

    from nemo_squeezeformer.analysis import redundancy
    from nemo_squeezeformer.analysis.redundancy_plot import Curves
    from nemo_squeezeformer.transcription.models import load_model
    from nemo_squeezeformer.transcription.speech import Speech

    model = load_model(name, device, args.verbose)
    speech = Speech(utterances, model.preprocessor._sample_rate, "average")
    encoders = {False: model.encoder} | ({True: redundancy.untrained(model)} if args.untrained else {})
    curves = []
    for untrained, encoder in encoders.items():
        heard = tqdm(range(len(speech)), desc=label, unit=" utterances", disable=None)
        try:
            samples = _samples(speech[index] for index in heard)
            curves.append(Curves(label, redundancy.measure(model.preprocessor, encoder, samples), untrained))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    kind = f"{type(model).__name__}, {type(model.encoder).__name__}"
    weights = sum(parameter.numel() for parameter in model.encoder.parameters())
    return curves, f"{label}: {name}, {kind} of {len(model.encoder.layers)} blocks and {weights:,} parameters"


def _samples(sounds: Iterable[Sound]) -> Iterator[Any]:
    """Yield the samples of the utterances, without the utterances that are too short.

    Raises:
        UserError: a recording cannot be read or cannot be used.
    """
    for sound in sounds:
        if sound.problem:
            raise UserError(sound.problem)
        if sound.samples is not None:
            yield sound.samples
