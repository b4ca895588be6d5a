"""Transcribe audio files with an exported model, without torch and NeMo.

The text is printed while the audio passes through the model.
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
    parser.add_argument("audio", nargs="+", help="wav files with the sample rate of the model", type=Path)
    parser.add_argument("--quiet", action="store_true", help="print only the final texts")
    args = parser.parse_args(argv)

    from nemo_squeezeformer.deployment.onnx_stream.transcribing import print_texts  # needs the extra `onnx`

    return print_texts(args)


if __name__ == "__main__":
    sys.exit(main())
