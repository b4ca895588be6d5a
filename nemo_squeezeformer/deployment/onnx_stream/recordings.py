"""The audio that the program reads: files, folders, manifests and standard input, at the sample rate of the model."""

from __future__ import annotations

import sys
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import manifests
from nemo_squeezeformer.files.audio import folders
from nemo_squeezeformer.files.audio.headers import UNKNOWN_SIZES, read_header
from nemo_squeezeformer.files.audio.length import refuse_cut
from nemo_squeezeformer.files.manifest_paths import expanded, is_manifest
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks, FileBlocks, PCMBlocks, Unreadable

STDIN = "-"
Recording = tuple[str, AudioBlocks]  # the name in the output, and a reader of the samples


def recordings(inputs: Sequence[str], rate: int, stdin_rate: int | None) -> Iterator[Recording]:
    """Yield the recordings of all inputs. Close each reader after use.

    Args:
        inputs: Paths of files, of folders and of manifests, or only ``-``, which means raw 16-bit samples of one
            channel from standard input.
        rate: Sample rate of the model in Hz.
        stdin_rate: Sample rate of standard input in Hz; None means ``rate``.

    Raises:
        UserError: A file cannot be read, is cut or has no samples, or a package is missing.
    """
    if STDIN in inputs:
        if len(inputs) > 1:
            raise UserError(f"standard input (-) cannot be combined with other inputs: {' '.join(inputs)}")
        yield STDIN, PCMBlocks(sys.stdin.buffer, stdin_rate or rate, rate)
        return
    if stdin_rate:
        raise UserError(f"--sample-rate {stdin_rate} is for standard input (-); leave out --sample-rate")
    for name in inputs:
        if is_manifest(name) or Path(name).is_dir():
            yield from _several(name, rate)
        else:
            if _has_soundfile() and Path(name).is_file() and (problem := read_header(name).problem):
                raise UserError(problem)
            yield name, _blocks(Utterance({}, name, 0.0, 0.0, 1), rate)


def _several(name: str, rate: int) -> Iterator[Recording]:
    if not _has_soundfile():
        raise UserError(f"{name}: folders and manifests need the package soundfile; run: pip install soundfile")
    if is_manifest(name):
        found = [row for path in expanded(name) for row in manifests.read_utterances(path, ("audio_filepath",))]
    else:
        files, left_out = folders.audio_files(name)
        if left_out:
            print(left_out, file=sys.stderr)
        found = manifests.read_files([str(file) for file in files])
    for utterance in found:
        yield str(utterance.row["audio_filepath"]), _blocks(utterance, rate)


def _blocks(utterance: Utterance, rate: int) -> AudioBlocks:
    name = utterance.audio
    if isinstance(name, str) and not Path(name).is_file():
        raise UserError(f"there is no file {name}")
    blocks = WaveBlocks(str(name), rate) if not _has_soundfile() else FileBlocks(utterance, rate, "average")
    if blocks.problem:
        raise UserError(blocks.problem)
    return blocks


def _has_soundfile() -> bool:
    try:
        import soundfile  # noqa: F401
    except (ImportError, OSError):  # OSError: the library libsndfile is missing
        return False
    return True


class WaveBlocks(AudioBlocks):
    """A reader of a wav file with 16 bits for each sample. The reader needs only the standard library and NumPy.

    Raises:
        UserError: The file has another format or no samples.
    """

    def __init__(self, name: str, rate: int):
        self.name, self.frames = name, 0
        try:
            self.file = wave.open(name)  # noqa: SIM115  the file stays open
        except (wave.Error, EOFError) as error:
            raise UserError(
                f"{name} cannot be read ({error}); without the package soundfile, only 16-bit wav files can be read: "
                "pip install soundfile"
            ) from error
        bits = 8 * self.file.getsampwidth()
        if bits != 16:
            raise UserError(
                f"{name} has samples of {bits} bits; without the package soundfile, only 16 bits can be read: pip "
                "install soundfile"
            )
        if not self.file.getnframes():
            raise UserError(f"audio file {name!r} has a header but no samples; create it again or remove it")
        super().__init__(self.file.getframerate(), rate)

    def source(self, samples: int) -> np.ndarray:
        try:
            pcm = np.frombuffer(self.file.readframes(samples), dtype="<i2")
            self.frames += len(pcm) // self.file.getnchannels()
            if not len(pcm):
                self._refuse_cut()
        except (wave.Error, EOFError, ValueError, UserError) as error:
            raise Unreadable(str(error)) from error
        return (pcm.reshape(-1, self.file.getnchannels()).astype(np.float32) / 32768).mean(axis=1)

    def close(self) -> None:
        self.file.close()

    def _refuse_cut(self) -> None:
        """Raise UserError if the file has ended before the length in its header."""
        size = self.file.getnframes() * self.file.getnchannels() * self.file.getsampwidth()
        if all(abs(size - unknown) >= 2**16 for unknown in UNKNOWN_SIZES):
            refuse_cut(
                self.name, self.frames / self.file.getframerate(), self.file.getnframes() / self.file.getframerate()
            )
