"""Words in recordings that are far longer than the recordings of the training.

    python -m benchmarks.long_audio MODEL.nemo... --manifests MANIFEST... --minutes 10 60

The program joins the utterances of NeMo manifests with pauses between them, in changing order. It decodes the long
recording in one call, with full attention and with local attention, and cut at pauses by silero-vad. For comparison, it
decodes each utterance alone. A hybrid model is measured with each of its decoders.

The program prints a table for each model: word error rate, number of words found, and processor time of one thread. It
measures full attention only for the first length, because the time grows with the square of the length.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from nemo.collections.asr.metrics.wer import word_error_rate
from nemo.collections.asr.models import ASRModel
from nemo.utils import logging

import nemo_squeezeformer  # noqa: F401  registers with NeMo
from benchmarks.long_audio.measure import FULL, Model, Way, measured, write
from benchmarks.long_audio.recordings import Spoken, joined, utterances
from benchmarks.measuring import machine
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

ALONE, ONE_CALL = "each utterance alone", "one call, full attention"


def ways(windows: Sequence[int], longest: Sequence[float]) -> list[Way]:
    """Return the rows of a table."""
    return [
        Way(ALONE, FULL, alone=True),
        Way(ONE_CALL, FULL),
        *(Way(f"one call, window [{frames}, {frames}]", [frames, frames]) for frames in windows),
        *(Way(f"cut at pauses, at most {seconds:g} s", FULL, longest=seconds) for seconds in longest),
    ]


def models_of(path: Path) -> list[Model]:
    """Return the model in a .nemo file, or the model with each of its decoders if the model is a hybrid."""
    hybrid = hasattr(ASRModel.restore_from(str(path), map_location="cpu"), "cur_decoder")
    return [Model(path, decoder) for decoder in (("ctc", "rnnt") if hybrid else (None,))]


def table(model: Model, made: dict[float, list[Spoken]], rows: Sequence[Way]) -> Iterator[str]:
    """Yield the lines of the table of a model.

    Args:
        made: the parts of the recording of each length in minutes.
        rows: the ways to decode the recordings.
    """
    columns = ("WER, %", "words", "time, s")
    yield head(["", *(f"{minutes:g} min: {column}" for minutes in made for column in columns)])
    with tempfile.TemporaryDirectory() as folder:
        written = {minutes: write(Path(folder) / f"{minutes:g}.wav", parts) for minutes, parts in made.items()}
        for way in rows:
            cells = [way.name]
            for number, (minutes, parts) in enumerate(made.items()):
                if way.name == ONE_CALL and number:
                    cells += ["-"] * len(columns)
                    continue
                text, seconds = measured(model, way, *written[minutes])
                rate = 100 * word_error_rate([text], [" ".join(part.text for part in parts if part.text)])
                cells += [f"{rate:.1f}", f"{len(text.split()):,}", f"{seconds:.1f}"]
            yield line(cells)


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.long_audio", __doc__)
    parser.add_argument("models", type=Path, nargs="+", help=".nemo files with a Squeezeformer of this project")
    parser.add_argument("--manifests", type=Path, nargs="+", required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument(
        "--windows", type=int, nargs="*", default=[128, 64, 32, 16], help="encoder frames to each side of a frame"
    )
    parser.add_argument(
        "--longest", type=float, nargs="*", default=[10.0, 20.0, 30.0], help="maximum seconds of a piece"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    spoken, rng = utterances(args.manifests), random.Random(0)
    made = {minutes: joined(spoken, minutes, rng) for minutes in args.minutes}
    words = [f"{minutes:g} minutes: {sum(len(part.text.split()) for part in made[minutes]):,}" for minutes in made]
    print(
        "`python -m benchmarks.long_audio` makes this page.\n\n"
        f"Conditions: {machine.processor()}, one thread, {machine.versions()}, batch size 16, the utterances of "
        f"{' and '.join(path.stem for path in args.manifests)} in changing order with pauses of 0.2 to 0.8 s. Words in "
        f"the recordings of {', '.join(words)}. All words of a recording are compared as one text. The columns "
        '"words" have the number of words in the output. The time is the processor time of all steps from the file to '
        "the text: reading, features, detection of speech, encoder and decoder."
    )
    for path in args.models:
        for model in models_of(path):
            print(f"\n## {model.name}\n", flush=True)
            for each in table(model, made, ways(args.windows, args.longest)):
                print(each, flush=True)


if __name__ == "__main__":
    main()
