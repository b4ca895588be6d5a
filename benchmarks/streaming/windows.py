"""Word error rates of an offline model in overlapping windows, and the utterances that end with a pause.

    python -m benchmarks.streaming.windows build/decoding/digits-ctc/model.nemo DIGITS/connected_test_seen.jsonl \
        > benchmarks/results/stream_windows.md

`python -m benchmarks.decoding train digits-ctc DIGITS` trains the model.

The program joins the recordings to long recordings, with pauses of digital silence, and streams the long recordings as
`nemo-squeezeformer stream` does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.measuring import machine, recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

JOINED = 10  # recordings in a long recording
PAUSE, SILENCE = 1.5, 1.2  # seconds between two recordings, and seconds of silence that end an utterance
LATENCIES = (8000, 4000, 2000, 1000)  # milliseconds
INTRODUCTION = f"""\
`python -m benchmarks.streaming.windows` makes this page.

The table compares `transcribe`, which reads a whole recording, with overlapping windows, which begin 10 s before a
chunk. A long recording has {JOINED} recordings of the manifest, with {PAUSE} s of digital silence between them. An
utterance ends after {SILENCE} s without a token.

- "compute": seconds of processor time for a second of audio, on one thread, one stream at a time.
- "utterances": the number of utterances that the stream finds. In brackets: how many recordings are in exactly one
  utterance, which contains no other recording.
- "delay": the median time from the end of the last word to the step that prints the utterance."""


class Long(NamedTuple):
    """A long recording: its samples (T,), and for each part the text, the first second and the last second."""

    samples: torch.Tensor
    texts: list[str]
    spans: list[tuple[float, float]]


def joined(rows: Sequence[dict[str, Any]], rate: int) -> Long:
    """Return the recordings of ``rows`` in a long recording."""
    import soundfile

    parts, texts, spans, at = [], [], [], 0
    for row in rows:
        samples, _ = soundfile.read(row["audio_filepath"], dtype="float32")
        spans.append((at / rate, (at + len(samples)) / rate))
        texts.append(row["text"])
        parts += [samples, np.zeros(int(PAUSE * rate), np.float32)]
        at += len(samples) + int(PAUSE * rate)
    return Long(torch.from_numpy(np.concatenate(parts)), texts, spans)


def streamed(streams: Any, long: Long, rate: int) -> tuple[str, list[dict[str, Any]], list[float]]:
    """Return the text of a stream, the utterances, and the delay of each utterance in seconds."""
    streams.open(0)
    at, delays, found = 0, list[float](), list[dict[str, Any]]()
    while not streams.done(0):
        missing = streams.missing(0)
        piece = long.samples[at : at + missing]
        streams.push(0, piece)
        at += len(piece)
        if len(piece) < missing:
            streams.end(0)
        streams.step([0])
        if streams.done(0):
            streams.times.finish(0)
        new = streams.times.rows(0, "utterance", len(found))
        delays += [at / rate - row["end"] for row in new if not streams.done(0)]
        found += new
    return streams.text(0), found, delays


def alone(found: Sequence[dict[str, Any]], long: Long) -> int:
    """Return the number of recordings that are in exactly one utterance, which contains no other recording."""
    inside = [
        {i for i, (start, end) in enumerate(long.spans) if row["start"] < end and row["end"] > start} for row in found
    ]
    return sum([parts for parts in inside if i in parts] == [{i}] for i in range(len(long.spans)))


def main() -> None:
    from nemo.collections.asr.metrics.wer import word_error_rate
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    import nemo_squeezeformer  # noqa: F401  registers with NeMo
    from nemo_squeezeformer.transcription import models
    from nemo_squeezeformer.transcription.live.window_streams import WindowStreams, choose_window

    parser = command_line("benchmarks.streaming.windows", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("manifests", type=Path, nargs="+")
    args = parser.parse_args()
    logging.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    model = ASRModel.restore_from(args.model, map_location="cpu").eval()
    models.optimize(model)
    rate = model.preprocessor._sample_rate
    print(f"{INTRODUCTION}\n\n{machine.processor()}, {machine.versions()}, commit {machine.commit()}.")
    for manifest in args.manifests:
        rows = recordings.rows(manifest)
        longs = [joined(rows[at : at + JOINED], rate) for at in range(0, len(rows), JOINED)]
        references = [" ".join(long.texts) for long in longs]
        seconds = sum(len(long.samples) for long in longs) / rate
        print(
            f"\n{manifest.stem}: {len(rows)} recordings, {sum(len(text.split()) for text in references)} words, in "
            f"{len(longs)} long recordings of {seconds / len(longs):.0f} s on average\n"
        )
        print(head(["way", "WER, %", "compute, s", "utterances", "delay, s"]))
        start = time.process_time()
        found = model.transcribe([long.samples.numpy() for long in longs], batch_size=1, verbose=False, num_workers=0)
        took = time.process_time() - start
        wer = 100 * word_error_rate([it.text for it in found], references)
        print(line(["transcribe", f"{wer:.2f}", f"{took / seconds:.4f}", "", ""]), flush=True)
        for latency in LATENCIES:
            window, _ = choose_window(model, latency)
            streams = WindowStreams(model, 1, window, silence=SILENCE)
            start = time.process_time()
            results = [streamed(streams, long, rate) for long in longs]
            took = time.process_time() - start
            wer = 100 * word_error_rate([text for text, _, _ in results], references)
            several = sum(len(utterances) for _, utterances, _ in results)
            right = sum(alone(utterances, long) for (_, utterances, _), long in zip(results, longs))
            delay = statistics.median(delay for *_, delays in results for delay in delays)
            cells = [f"windows, {latency} ms", f"{wer:.2f}", f"{took / seconds:.4f}"]
            print(line([*cells, f"{several} ({right})", f"{delay:.2f}"]), flush=True)


if __name__ == "__main__":
    main()
