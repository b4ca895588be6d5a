"""The text, the word times and the subtitles of an uploaded audio file."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch

from nemo_squeezeformer.core.encoder import SqueezeformerEncoder
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance, read_files
from nemo_squeezeformer.transcription import long_audio, models
from nemo_squeezeformer.transcription.hypotheses import Result, decode, decoding_config
from nemo_squeezeformer.transcription.pauses import detector
from nemo_squeezeformer.transcription.pauses.cut_recordings import decode_cut
from nemo_squeezeformer.transcription.pauses.cutting import LONG, LONGEST
from nemo_squeezeformer.transcription.subtitles import cues, srt, vtt, words_of

PIECES = 4  # pieces of a long file in a batch
MOST_VALUES = 400_000  # samples of all channels in a second; 384,000 for two channels at 192 kHz
MOST_WHOLE = 2**29  # samples of all channels of a file that is read as a whole; they need 2 GiB
LESS_URGENT = 10  # the nice value of the thread of uploads on Linux


class Uploads:
    """A callable that transcribes an uploaded audio file. Only one thread at a time calls it.

    Args:
        model: a NeMo ASR model in evaluation mode, after ``models.optimize``. ``Uploads`` changes the decoder of the
            model.
        longest: maximum length of a file in seconds.
    """

    def __init__(self, model: Any, longest: float):
        self.model, self.longest = model, longest
        self.stopped = threading.Event()
        self.has_times = True
        try:
            models.enable_timestamps(model)
        except UserError:  # a class of models without timestamps
            self.has_times = False

    def stop(self) -> None:
        """End the running transcription after its current batch, and refuse further files. Any thread can call it."""
        self.stopped.set()

    def __call__(self, path: str, name: str) -> dict[str, Any]:
        """Return the ``text``, the length in ``seconds``, the ``words`` with their times, ``srt`` and ``vtt``.

        A word is a list of the text, the start and the end in seconds. ``srt`` and ``vtt`` are the texts of subtitles.

        Args:
            path: the path of the file.
            name: the name of the file for its user.

        Raises:
            UserError: the file cannot be read, is too long, or does not fit into memory. The message names the file
                ``name``. The error also follows ``stop``.
        """
        self._check()
        try:
            (utterance,) = read_files([path], strict=False)
            if utterance.problem:
                raise UserError(utterance.problem)
            return self._transcribed(utterance)
        except UserError as error:
            raise UserError(str(error).replace(path, name)) from None

    def _transcribed(self, utterance: Utterance) -> dict[str, Any]:
        if utterance.duration > self.longest:
            raise UserError(
                f"{utterance.audio} has {utterance.duration:.0f} s, and this page takes at most {self.longest:.0f} s; "
                "cut the recording, or transcribe it with `nemo-squeezeformer transcribe`"
            )
        if utterance.rate * utterance.channels > MOST_VALUES:  # a small file of silence would fill the memory
            raise UserError(
                f"{utterance.audio} has {utterance.channels} channels at {utterance.rate} Hz, and this page takes at "
                f"most {MOST_VALUES:,} samples per second; convert it to one channel at 16000 Hz"
            )
        samples = round(utterance.rate * utterance.channels * utterance.duration)
        if samples > MOST_WHOLE and not _is_cut(utterance):
            raise UserError(
                f"{utterance.audio} has {samples:,} samples in all channels, and this page takes at most "
                f"{MOST_WHOLE:,} samples of a file; convert it to one channel at 16000 Hz, or cut the recording"
            )
        (result,) = [result for batch in self._decoded(utterance) for result in batch]
        if result.problem:
            raise UserError(result.problem)
        times = getattr(result.best, "timestamp", None)
        words = words_of(times["word"]) if isinstance(times, dict) and "word" in times else []
        lines = cues(words)
        return {
            "text": getattr(result.best, "text", result.best),
            "seconds": utterance.duration,
            "words": [[word.text, round(word.start, 3), round(word.end, 3)] for word in words],
            "srt": srt(lines),
            "vtt": vtt(lines),
        }

    def _decoded(self, utterance: Utterance) -> Iterator[list[Result]]:
        """Decode a file as `transcribe` does: a long file is cut at pauses, if silero-vad is installed."""
        config = decoding_config(self.model, [utterance], self.has_times)
        if _is_cut(utterance):
            return decode_cut(self.model, config, [utterance], PIECES, "average", LONGEST, self._until_stopped)
        try:
            long_audio.notice_of_memory(self.model, [utterance], batch_size=1)
        except UserError:  # the message names options of `transcribe`
            extra = "" if detector.is_installed() else "; the owner of the server can also install the extra vad"
            raise UserError(
                f"{utterance.audio} has {utterance.duration:.0f} s, and needs more memory than the server has; cut the "
                f"recording into shorter files{extra}"
            ) from None
        return decode(self.model, config, [utterance], 1, 0, "average")

    def _until_stopped(self, batches: Iterator[list[Result]]) -> Iterator[list[Result]]:
        self._check()
        for batch in batches:
            yield batch
            self._check()

    def _check(self) -> None:
        if self.stopped.is_set():
            raise UserError("the server has been stopped")


def _is_cut(utterance: Utterance) -> bool:
    """Return True if a recording is cut at pauses. Only a part of the recording is then in memory at a time."""
    return utterance.duration >= LONG and detector.is_installed()


def share_weights(model: Any, other: Any) -> None:
    """Give ``other`` the weights of ``model``, so that both models together need the memory of one model.

    Both models come from the same file, and ``models.optimize`` was called on both models. Two Squeezeformer encoders
    share their layers, because the layers keep the same numbers in several memory layouts. Each encoder keeps its own
    context. Two threads can use the layers at the same time.
    """
    if isinstance(getattr(model, "encoder", None), SqueezeformerEncoder):
        for name, layers in model.encoder.named_children():
            setattr(other.encoder, name, layers)
    with torch.no_grad():
        for weight, same in zip(model.parameters(), other.parameters()):
            same.data = weight.data


def be_less_urgent() -> None:
    """Give the calling thread a lower priority, so that live captions do not wait for files. This works on Linux."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LESS_URGENT)
