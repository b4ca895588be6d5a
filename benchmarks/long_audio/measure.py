"""The word error rate and the time of each way to decode a long recording, in the way of `transcribe`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch

from benchmarks.long_audio.recordings import RATE, Spoken
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription import long_audio, models
from nemo_squeezeformer.transcription.hypotheses import Result, decode, decoding_config
from nemo_squeezeformer.transcription.pauses.cut_recordings import decode_cut

BATCH = 16
FULL = [-1, -1]


class Way(NamedTuple):
    """A way to decode a recording.

    Attributes:
        name: the first cell of the row.
        size: number of encoder frames to the left and right that attention sees; -1 for all frames.
        longest: maximum seconds of a piece, if the recording is cut at pauses.
        alone: decode each utterance alone, from its true start to its true end.
    """

    name: str
    size: list[int]
    longest: float | None = None
    alone: bool = False


class Model(NamedTuple):
    """A .nemo file, and the decoder of a hybrid model."""

    path: Path
    decoder: str | None

    @property
    def name(self) -> str:
        return (
            f"{self.path.stem}, {'CTC' if self.decoder == 'ctc' else 'transducer'}" if self.decoder else self.path.stem
        )

    def load(self, size: list[int]) -> Any:
        model = models.load_model(str(self.path), torch.device("cpu"))
        long_audio.set_context(model, size)
        models.optimize(model)
        models.choose_decoder(model, self.decoder)
        return model


def write(path: Path, parts: Sequence[Spoken]) -> tuple[Utterance, list[Utterance]]:
    """Write the recording, and return the whole recording and each utterance in it."""
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        each, at = [], 0
        for samples, text in parts:
            file.write(samples)
            if text:
                each.append(_utterance(path, at / RATE, len(samples) / RATE))
            at += len(samples)
    return _utterance(path, 0.0, at / RATE), each


def measured(model: Model, way: Way, whole: Utterance, each: Sequence[Utterance]) -> tuple[str, float]:
    """Return the recognized text of the recording, and the seconds of processor time for all its steps."""
    loaded = model.load(way.size)
    list(_decoded(loaded, way, whole, each[:1], warm=True))
    begun = time.thread_time()
    results = [result for batch in _decoded(loaded, way, whole, each) for result in batch]
    took = time.thread_time() - begun
    if way.alone:  # the longest utterances were decoded first
        order = _longest_first(each)
        results = [result for _, result in sorted(zip(order, results), key=lambda pair: pair[0])]
    texts = [result.best if isinstance(result.best, str) else result.best.text for result in results]
    return " ".join(texts), took


def _decoded(
    model: Any, way: Way, whole: Utterance, each: Sequence[Utterance], warm: bool = False
) -> Iterator[list[Result]]:
    """Decode the recording. With ``warm``, decode only the first utterance, so that all libraries are loaded."""
    config = decoding_config(model, [whole])
    if way.longest and not warm:
        return decode_cut(model, config, [whole], BATCH, "average", way.longest)
    one = [each[index] for index in _longest_first(each)] if way.alone or warm else [whole]
    return decode(model, config, one, BATCH, 0, "average")


def _longest_first(each: Sequence[Utterance]) -> list[int]:
    return [int(index) for index in np.argsort([-utterance.duration for utterance in each], kind="stable")]


def _utterance(path: Path, start: float, seconds: float) -> Utterance:
    row = {"audio_filepath": str(path), "offset": start, "duration": seconds}
    return Utterance(row, str(path), start, seconds, 1)
