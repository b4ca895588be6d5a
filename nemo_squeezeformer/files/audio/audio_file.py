"""The reading of audio files with one interface, for the formats of soundfile and for the formats of PyAV."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio.length import refuse_cut

if TYPE_CHECKING:
    import numpy as np

AUDIO_EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})  # the formats that an error recommends
AV_EXTENSIONS = frozenset({".3gp", ".aac", ".amr", ".m4a", ".mka", ".mov", ".mp4", ".webm", ".wma"})
EXTRA = "pip install 'nemo-squeezeformer[audio]'"  # the installation of PyAV
RATES = (1_000, 1_000_000)  # the lowest and the highest sample rate of a file in Hz
UNKNOWN = 2**62  # soundfile gives 2**63 - 1 as the number of frames of a FLAC file without a length
AT_ONCE = 2**26  # samples of a read call; the limit protects the memory if a header has a wrong length
RELATIVE = " (a path in a manifest is absolute, or relative to the folder of the manifest)"


def open_audio(path: str | os.PathLike[str]) -> AudioFile:
    """Return an audio file that is open for reading.

    Raises:
        UserError: the file is missing, is not a file, is empty or damaged, or has an unknown format. The message names
            the file and the remedy.
    """
    return AudioFile(os.fspath(path))


class AudioFile:
    """An audio file that is open for reading. A ``with`` statement closes the file.

    soundfile cannot seek in some formats, for example WAV with GSM. In these formats ``seek`` reads up to the frame.

    Attributes:
        name: the path of the file.
        samplerate: number of frames per second.
        channels: number of channels.
        frames: number of frames of the whole file.
        seekable: True if the library can seek in the file.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._position = 0
        self._source = _open(path)
        self.samplerate: int = self._source.samplerate
        self.channels: int = self._source.channels
        self.frames: int = self._source.frames
        self.seekable: bool = self._source.can_seek()
        if self.frames >= UNKNOWN:
            self.close()
            raise UserError(
                f"audio file {path!r} does not say its length, because it was written to a pipe; write it again with: "
                "ffmpeg -i FILE NEW.flac"
            )
        if not RATES[0] <= self.samplerate <= RATES[1]:
            self.close()
            raise UserError(
                f"audio file {path!r} has a sample rate of {self.samplerate} Hz, which is not between {RATES[0]} and "
                f"{RATES[1]} Hz; create the file again"
            )

    @property
    def log(self) -> str:
        """The messages of the library about the header."""
        return str(self._source.extra_info)

    def seek(self, frame: int) -> None:
        """Set the position to the frame with the number ``frame``, counted from 0.

        Raises:
            UserError: the file is damaged.
        """
        frame = min(frame, self.frames)
        if frame == self._position:
            return
        if self.seekable:
            with self._named_errors():
                self._source.seek(frame)
        else:
            if frame < self._position:
                self.close()
                self._source, self._position = _open(self.name), 0
            for _ in self._blocks(frame - self._position, "float32"):
                pass
        self._position = frame

    def read(self, frames: int = -1, dtype: str = "float32", always_2d: bool = False) -> Any:
        """Return the next samples. The shape is (T,) for a file with one channel, and (T, channels) otherwise.

        T is ``frames``, or less at the end of the file. If ``frames`` is negative, the rest of the file is returned.

        Raises:
            UserError: the file is damaged, or ends before the length in its header. The message names the second.
        """
        import numpy as np

        rest = self.frames - self._position
        frames = rest if frames < 0 else min(frames, rest)
        blocks = list(self._blocks(frames, dtype))
        if len(blocks) != 1:
            blocks = [np.concatenate(blocks) if blocks else np.zeros((0, self.channels), dtype)]
        samples = blocks[0]
        self._position += len(samples)
        if len(samples) < frames:
            refuse_cut(self.name, self._position / self.samplerate, self.frames / self.samplerate)
        return samples[:, 0] if self.channels == 1 and not always_2d else samples

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _blocks(self, frames: int, dtype: str) -> Iterator[np.ndarray]:
        """Yield the next ``frames`` frames in blocks with the shape (T, channels)."""
        at_once = max(AT_ONCE // self.channels, 1)
        while frames > 0:
            asked = min(frames, at_once)
            with self._named_errors():
                block = self._source.read(asked, dtype=dtype, always_2d=True)
            yield block
            if len(block) < asked:
                return
            frames -= asked

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError, MemoryError) as error:
            second = self._position / self.samplerate
            raise UserError(
                f"audio file {self.name!r} is damaged after second {second:.2f} ({_reason(error)}); copy the file "
                "again from its source, or create it again"
            ) from None

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: str) -> Any:
    """Return an open ``SequentialFile`` of soundfile, or an object of PyAV with the same interface."""
    from nemo_squeezeformer.files.audio import sequential_file

    _require_file(path)
    try:
        # Bytes, because soundfile cannot encode a name that is not UTF-8.
        return sequential_file.SequentialFile(os.fsencode(path) if os.name == "posix" else path)
    except (RuntimeError, OSError, ValueError, TypeError) as error:  # TypeError: samples without a header
        reason = _reason(error)
    extension = os.path.splitext(path)[1].lower()
    if extension in AV_EXTENSIONS:
        from nemo_squeezeformer.files.audio import av_audio

        try:
            return av_audio.AvAudio(path)
        except ImportError:
            raise UserError(f"audio file {path!r}: the format {extension} needs the package av: {EXTRA}") from None
        except (RuntimeError, OSError, ValueError) as error:
            reason = _reason(error)
    recommended = " ".join(sorted(name[1:] for name in AUDIO_EXTENSIONS))
    raise UserError(
        f"audio file {path!r} is corrupt or has a format that is not read ({reason}); create it again, or convert it "
        f"to one of {recommended}"
    )


def _require_file(path: str) -> None:
    """Raise UserError if the path is not a file with content. The opening of a named pipe would wait forever."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        raise UserError(f"audio file {path!r} does not exist; correct the path{RELATIVE}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"audio file {path!r} is not a file; give the path of an audio file")
    if found.st_size == 0:
        raise UserError(f"audio file {path!r} is empty (0 bytes); create it again or remove it")


def _reason(error: BaseException) -> str:
    """Return the text of an error in one line, without the path."""
    text = getattr(error, "error_string", "") or str(error) or type(error).__name__
    return " ".join(text.split()).rstrip(".")
