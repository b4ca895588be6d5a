"""Readers that return audio in blocks, from files or from a pipe with raw samples.

The blocks have one channel and the sample rate of the model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import BinaryIO

import numpy as np

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio import AudioFile, open_audio
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.live.resampler import Resampler, Samples
from nemo_squeezeformer.transcription.readable import UNREADABLE, unreadable, wrong_values

CONTAINERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}  # the first bytes of a file


class Unreadable(Exception):
    """The source cannot be read further. The message is the problem."""


class AudioBlocks(ABC):
    """A reader that returns a requested number of samples.

    The reader reads only the part of the source that is necessary for the requested samples.

    Args:
        source_rate: sample rate of the source, in Hz.
        rate: sample rate of the returned samples, in Hz.

    Raises:
        UserError: the two sample rates differ, and the package soxr is not installed.

    Attributes:
        problem: the reason why the source cannot be read further. The audio then ends before the problem.
    """

    problem = ""

    def __init__(self, source_rate: int, rate: int):
        self.resampled = Resampler(source_rate, rate)
        self.rest = np.zeros(0, np.float32)
        self.ended = False

    @abstractmethod
    def source(self, samples: int) -> Samples:
        """Return the next samples (T,) at the sample rate of the source.

        T is at most ``samples``. At the end of the source T is 0.
        """

    def read(self, samples: int) -> Samples:
        """Return the next samples (T,). T is ``samples``, or less at the end of the audio."""
        while len(self.rest) < samples and not self.ended:
            try:
                block = self.source(math.ceil((samples - len(self.rest)) / self.resampled.ratio))
            except Unreadable as error:
                block, self.problem = np.zeros(0, np.float32), str(error)
            self.ended = len(block) == 0
            self.rest = np.concatenate([self.rest, self.resampled(block, last=self.ended)])
        block, self.rest = self.rest[:samples], self.rest[samples:]
        return block

    def stop(self) -> None:
        """Stop reading from the source. ``read`` still returns the samples that have been read."""
        self.ended = True

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the source."""


class FileBlocks(AudioBlocks):
    """A reader of the audio of an utterance, from the offset and for the duration of the utterance.

    ``channel`` selects the channel of audio with several channels: ``"average"`` or a number from 0, as in NeMo.
    """

    def __init__(self, utterance: Utterance, rate: int, channel: str | int):
        self.audio, self.channel = utterance.audio, channel
        paths = utterance.audio if isinstance(utterance.audio, list) else [utterance.audio]
        self.files: list[AudioFile] = []
        self.at = self.left = 0  # number of the next sample, and number of samples from it to the end
        try:
            for path in paths:
                self.files.append(open_audio(path))
                source_rate = self.files[0].samplerate
                self.at = int(utterance.offset * source_rate)
                self.files[-1].seek(self.at)
        except UNREADABLE as error:
            super().__init__(rate, rate)
            self.problem, self.ended = unreadable(self.audio, error), True
            return
        duration = utterance.row.get("duration")
        self.left = int(duration * source_rate) if duration else self.files[0].frames
        super().__init__(source_rate, rate)

    def source(self, samples: int) -> Samples:
        try:
            blocks = [file.read(min(samples, self.left), always_2d=True) for file in self.files]
        except UNREADABLE as error:
            raise Unreadable(unreadable(self.audio, error)) from None
        for file, block in zip(self.files, blocks):
            problem = wrong_values(file.name, block, file.samplerate, self.at / file.samplerate)
            if problem:
                raise Unreadable(problem)
        shortest = min(map(len, blocks))
        self.left, self.at = self.left - shortest, self.at + shortest
        joined: Samples = np.concatenate([block[:shortest] for block in blocks], axis=1)  # (T, channels)
        if joined.shape[1] == 1:
            return joined[:, 0]
        return joined.mean(axis=1) if isinstance(self.channel, str) else joined[:, self.channel]

    def close(self) -> None:
        for file in self.files:
            file.close()


class PCMBlocks(AudioBlocks):
    """A reader of raw samples (16 bits, little-endian, mono) from a pipe. The reader waits until samples arrive.

    ``bytes`` is the number of received bytes. ``odd`` is the first byte of an incomplete sample, or empty. At the end,
    ``odd`` is not empty if the number of bytes is odd.
    """

    def __init__(self, pipe: BinaryIO, source_rate: int, rate: int):
        self.pipe, self.odd, self.bytes = pipe, b"", 0
        super().__init__(source_rate, rate)

    def source(self, samples: int) -> Samples:
        data = self.odd
        while len(data) < 2:
            # One system call at a time: an interruption by Ctrl-C then loses no byte that has been read.
            more = self.pipe.read1(2 * samples - len(data))  # type: ignore[attr-defined]
            if not more:
                self.odd, self.bytes = data, self.bytes + len(data)
                return np.zeros(0, np.float32)
            data += more
        if not self.bytes:
            self._check(data)
        whole = len(data) // 2 * 2
        self.odd, self.bytes = data[whole:], self.bytes + whole
        return np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768

    def close(self) -> None:
        """Leave the pipe open. The code that opened the pipe must close the pipe."""

    def _check(self, data: bytes) -> None:
        for magic, kind in CONTAINERS.items():
            if data.startswith(magic):
                raise UserError(
                    f"standard input is a {kind} file (it begins with {magic!r}), but '-' means raw 16-bit PCM without "
                    "a header; give the path of the file, or convert it with ffmpeg -i FILE -f s16le -ac 1 -ar RATE -"
                )
