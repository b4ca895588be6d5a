"""The reading of audio with PyAV (FFmpeg), for formats that soundfile does not read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from nemo_squeezeformer.files.audio.length import refuse_cut

# FFmpeg recognizes playlists and similar formats, which open other files. These formats are not allowed.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,asf,aac,amr,amrnb,amrwb,matroska,webm"
ESTIMATED = ("aac", "amr", "amrnb", "amrwb")  # formats without a length in the header; FFmpeg estimates the length


class AvAudio:
    """The first audio stream of a file, with the part of the interface of ``SequentialFile`` that is needed.

    Raises:
        ImportError: PyAV is not installed.
        RuntimeError: PyAV cannot read the file.
        UserError: the file is cut.
    """

    extra_info = ""

    def __init__(self, path: str) -> None:
        import av

        self._errors = av.FFmpegError
        with self._open(path) as container:
            seconds, declared = _length(container)
        refuse_cut(path, seconds, declared)
        self._stack = contextlib.ExitStack()
        try:
            container = self._stack.enter_context(self._open(path))
            self._decoded = self._decode(container)
            # The header of AAC can give half of the sample rate of the decoded audio.
            nothing = np.zeros((0, 1), np.float32), 0
            self._rest: np.ndarray = nothing[0]
            self._rest, self.samplerate = next(self._decoded, nothing)
        except BaseException:
            self._stack.close()
            raise
        self.channels: int = self._rest.shape[1]
        self.frames = round(seconds * self.samplerate)

    def can_seek(self) -> bool:
        """Return False, because samples are only decoded in their order."""
        return False

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """Return the next ``frames`` frames, or less at the end: (T, channels)."""
        blocks, got = [self._rest], len(self._rest)
        while got < frames and (block := next(self._decoded, None)) is not None:
            blocks.append(block[0])
            got += len(block[0])
        samples = np.concatenate(blocks)
        self._rest = samples[frames:]
        return samples[:frames].astype(dtype, copy=False)

    def close(self) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[Any]:
        import av

        # PyAV receives a file instead of a path, because FFmpeg reads a path like "concat:a|b" as a command.
        options = {"format_whitelist": FORMATS}
        with (
            open(path, "rb") as file,
            self._named_errors(),
            av.open(file, metadata_errors="replace", options=options) as container,
        ):
            if not container.streams.audio:
                raise RuntimeError("the file has no audio stream")
            yield container

    def _decode(self, container: Any) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the samples (T, channels) and the sample rate of each decoded frame."""
        import av

        resampler = None
        with self._named_errors():
            for frame in container.decode(audio=0):
                if resampler is None:
                    resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
                for packed in resampler.resample(frame):
                    yield packed.to_ndarray().reshape(-1, packed.layout.nb_channels), packed.sample_rate

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise RuntimeError(error.strerror or str(error)) from None


def _length(container: Any) -> tuple[float, float]:
    """Return the length of the audio in seconds, and the length that the header says."""
    stream = container.streams.audio[0]
    start, end = None, 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            start = max(packet.pts, 0) if start is None else start
            end = max(end, packet.pts + (packet.duration or 0))
    seconds = float((end - (start or 0)) * stream.time_base)
    if container.format.name in ESTIMATED or stream.duration is None:
        return seconds, seconds
    return seconds, float(stream.duration * stream.time_base)
