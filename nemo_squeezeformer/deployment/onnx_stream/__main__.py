"""Transcribe audio with an exported model, without torch and NeMo.

A model for streams prints the text while the audio passes through the model. A model for whole utterances prints the
text after the end of the audio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nemo_squeezeformer.process import program


def main(argv: Sequence[str] | None = None) -> int:
    """Transcribe the files that ``argv`` names, and return the exit status, which ``program.run`` describes."""
    return program.run("onnx_stream", lambda: _transcribe(argv), extra="onnx")


def _transcribe(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nemo_squeezeformer.onnx_stream", description=__doc__)
    parser.add_argument(
        "model", help="exported model: the name that was given to `nemo-squeezeformer export --output`", type=Path
    )
    parser.add_argument(
        "audio",
        nargs="+",
        help="audio files, folders with audio, or manifests (without the package soundfile: 16-bit wav files); - for "
        "raw 16-bit little-endian mono PCM on standard input",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the final texts")
    parser.add_argument(
        "--timestamps",
        action="store_true",
        help='after the text of a recording, print a line "PATH<tab>word<tab>START<tab>END<tab>WORD" for each word, '
        "with times in seconds",
    )
    parser.add_argument(
        "--sample-rate", type=_rate, metavar="HZ", help="sample rate of standard input (default: the model's)"
    )
    args = parser.parse_args(argv)

    from nemo_squeezeformer.deployment.onnx_stream.transcribing import print_texts  # needs the extra `onnx`

    return print_texts(args)


def _rate(value: str) -> int:
    rate = int(value)
    if not 1_000 <= rate <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{value}: expected a sample rate in Hz from 1000 to 1000000")
    return rate


if __name__ == "__main__":
    sys.exit(main())
