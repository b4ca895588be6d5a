"""The options of `transcribe` that cut long recordings at pauses."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.commands.options import number
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.process.extras import install
from nemo_squeezeformer.transcription.pauses import detector
from nemo_squeezeformer.transcription.pauses.cutting import LONG, LONGEST

ON_WHICH_ROWS_DEPEND = ("--cut", "--longest")


def add_cut(parser: argparse.ArgumentParser) -> None:
    """Add the options. Later, call ``choose_cut``."""
    add = parser.add_argument
    add(
        "--cut",
        choices=("auto", "pauses", "none"),
        default="auto",
        help="pauses: find speech, cut each recording at pauses, and leave out silence; none: decode each recording in "
        f"one call; auto: pauses for recordings of {LONG:.0f} s or more if the extra vad is installed "
        "(default: %(default)s)",
    )
    add(
        "--longest",
        type=_seconds,
        metavar="SECONDS",
        help=f"maximum length of a piece between two cuts (default: {LONGEST:.0f})",
    )


def choose_cut(args: argparse.Namespace, utterances: Sequence[Utterance]) -> None:
    """Replace ``auto`` by the chosen value, and fill in the default of ``--longest``.

    Raises:
        UserError: the extra vad is not installed, or ``--longest`` is passed with ``--cut none``.
    """
    if args.cut == "none" and args.longest:
        raise UserError("--longest is for recordings that are cut; leave out --longest, or pass --cut pauses")
    if args.cut == "pauses":
        detector.require("--cut pauses")
    elif args.longest and not detector.is_installed():
        detector.require("--longest")
    if args.cut == "auto" and not detector.is_installed():
        count = sum(is_cut(args, utterance) for utterance in utterances)
        args.cut = "none"
        if count:
            say(
                f"{count} recordings of {LONG:.0f} s or more are decoded in one call each; to cut recordings at "
                f"pauses, run: {install('vad')}"
            )
    args.longest = args.longest or LONGEST


def is_cut(args: argparse.Namespace, utterance: Utterance) -> bool:
    """Return True if the utterance is cut at pauses."""
    return args.cut == "pauses" or (args.cut == "auto" and utterance.duration >= LONG)


def _seconds(text: str) -> float:
    seconds = number(text)
    if not 1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of seconds from 1")
    return seconds
