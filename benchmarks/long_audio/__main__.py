"""Words in recordings that are far longer than the recordings of the training.

    python -m benchmarks.long_audio MODEL.nemo MANIFEST... --minutes 10 20 60

The program joins the utterances of NeMo manifests with pauses between them, in changing order. The long recording is
transcribed in one call, with local attention and with full attention. For comparison, it is cut into its utterances.

The program prints a table for each length: word error rate, number of words found, and processor time of one thread.
It measures full attention and cut utterances only for the first length.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from nemo.collections.asr.metrics.wer import word_error_rate
from nemo.collections.asr.models import ASRModel

import nemo_squeezeformer  # noqa: F401  registers with NeMo
from benchmarks.measuring import recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

RATE = 16_000
COLUMNS = ["", "WER, %", "words found", "processor time, s"]


def utterances(manifests: Sequence[Path]) -> list[tuple[np.ndarray, str]]:
    """Return samples `(N,)` and text of each row of the manifests.

    Raises:
        SystemExit: A recording does not have 16,000 samples per second.
    """
    found = []
    for manifest in manifests:
        for row in recordings.rows(manifest):
            samples, rate = soundfile.read(row["audio_filepath"], dtype="float32")
            if rate != RATE:
                raise SystemExit(f"{row['audio_filepath']} has {rate} samples per second, but {RATE} are required")
            found.append((samples, row["text"]))
    return found


def joined(spoken: list[tuple[np.ndarray, str]], minutes: float, rng: random.Random) -> list[tuple[np.ndarray, str]]:
    """Return utterances and the pauses between them. Together they last ``minutes``. A pause has an empty text."""
    left = int(minutes * 60 * RATE)
    parts: list[tuple[np.ndarray, str]] = []
    while True:
        order = list(spoken)
        rng.shuffle(order)
        for samples, text in order:
            pause = np.zeros(int(RATE * rng.uniform(0.2, 0.8)), dtype=np.float32)
            if len(samples) + len(pause) > left:
                return [*parts, (np.zeros(left, dtype=np.float32), "")]
            parts += [(samples, text), (pause, "")]
            left -= len(samples) + len(pause)


def row(name: str, model: Any, audio: list[np.ndarray], texts: list[str]) -> str:
    begun = time.thread_time()
    hypotheses = model.transcribe(audio, batch_size=16 if len(audio) > 1 else 1, verbose=False)
    took = time.thread_time() - begun
    hypotheses = hypotheses[0] if isinstance(hypotheses, tuple) else hypotheses
    found = [hypothesis.text for hypothesis in hypotheses]
    wer = 100 * word_error_rate(found, texts)
    words = [sum(len(text.split()) for text in these) for these in (found, texts)]
    return line([name, f"{wer:.1f}", f"{words[0]:,} of {words[1]:,}", f"{took:.1f}"])


def table(model: Any, parts: list[tuple[np.ndarray, str]], windows: Sequence[int], full: bool) -> Iterator[str]:
    """Yield the rows for one joined recording.

    Args:
        full: Add the rows of full attention and of cut utterances.
    """
    spoken = [part for part in parts if part[1]]
    texts = [text for _, text in spoken]
    whole = [np.concatenate([samples for samples, _ in parts])]
    if full:
        model.change_attention_model("rel_pos", [-1, -1])
        yield row("cut into its utterances", model, [samples for samples, _ in spoken], texts)
        yield row("one call, full attention", model, whole, [" ".join(texts)])
    for window in windows:
        model.change_attention_model("rel_pos_local_attn", [window, window])
        yield row(f"one call, [{window}, {window}]", model, whole, [" ".join(texts)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.long_audio", __doc__)
    parser.add_argument("model", type=Path, help="a .nemo file with a Squeezeformer of this project and full attention")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 20.0, 60.0])
    parser.add_argument(
        "--windows", type=int, nargs="+", default=[128, 64, 32, 16], help="encoder frames to each side of a frame"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = ASRModel.restore_from(str(args.model), map_location="cpu").eval()
    spoken, rng = utterances(args.manifests), random.Random(0)
    print("`python -m benchmarks.long_audio` makes this page.")
    for minutes in args.minutes:
        print(f"\n{args.model.stem}, {minutes:g} minutes\n\n{head(COLUMNS)}")
        for each in table(model, joined(spoken, minutes, rng), args.windows, full=minutes == args.minutes[0]):
            print(each, flush=True)


if __name__ == "__main__":
    main()
