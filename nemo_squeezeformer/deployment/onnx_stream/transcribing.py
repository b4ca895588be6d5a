"""The transcription of audio files with an exported model: the text is printed while the model reads the audio."""

from __future__ import annotations

import argparse
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.decoding import build_decoder
from nemo_squeezeformer.deployment.onnx_stream.features import LogMel
from nemo_squeezeformer.deployment.onnx_stream.metadata import ORIGINAL
from nemo_squeezeformer.deployment.onnx_stream.original_features import original_features
from nemo_squeezeformer.deployment.onnx_stream.session import Encoder, Stream
from nemo_squeezeformer.deployment.token_text import text
from nemo_squeezeformer.errors import UserError


def print_texts(args: argparse.Namespace) -> int:
    """Print the path, a tab and the text of each file to stdout, and each change of the text to stderr. Return 0.

    Raises:
        UserError: the model or a file cannot be read, or the metadata of the model does not fit the graph.
    """
    try:
        encoder = Encoder(args.model)
        for path in args.audio:
            samples, start, final = read(path, encoder.metadata["features"]["sample_rate"]), time.perf_counter(), ""
            for seconds, partial in transcribe(encoder, samples):
                if partial != final and not args.quiet:
                    print(f"{seconds:7.2f} s  {partial}", file=sys.stderr)
                final = partial
            print(f"{path}\t{final}")
            if not args.quiet:
                took, rate = time.perf_counter() - start, encoder.metadata["features"]["sample_rate"]
                print(f"{len(samples) / rate:.2f} s of audio in {took:.2f} s", file=sys.stderr)
    except (LookupError, TypeError, ValueError, MemoryError) as error:  # for example a token without a text
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        message = f"{args.model}: the metadata does not fit the graph ({reason}); export the model again"
        raise UserError(message) from error
    return 0


def transcribe(encoder: Encoder, samples: np.ndarray) -> Iterator[tuple[float, str]]:
    """After each step, yield the duration of the audio so far in seconds, and the text of this audio.

    The last text is the whole text. If the features need the whole utterance, the program runs a single step. The shape
    of the samples is (n,).
    """
    settings = encoder.metadata["features"]
    if settings["normalize"] == ORIGINAL:
        decoder = build_decoder(encoder.metadata, encoder.path)
        tokens = decoder.step(encoder.utterance(original_features(samples, settings))) if len(samples) else []
        yield len(samples) / settings["sample_rate"], text(tokens, encoder.metadata)
        return
    log_mel, stream, decoder = LogMel(settings), Stream(encoder), build_decoder(encoder.metadata, encoder.path)
    tokens = []
    piece = encoder.shift * settings["hop"]
    for at in range(0, len(samples), piece):
        heard = min(at + piece, len(samples))
        steps = stream.push(log_mel.push(samples[at:heard]))
        if heard == len(samples):
            steps += stream.push(log_mel.finish()) + stream.finish()
        for outputs in steps:
            tokens += decoder.step(outputs)
            yield heard / settings["sample_rate"], text(tokens, encoder.metadata)


def read(path: Path, sample_rate: int) -> np.ndarray:
    """Return the samples (n,) of the file at ``path``, from -1 to 1, averaged over the channels.

    Without soundfile, only wav files with 16 bits per sample can be read.

    Raises:
        UserError: The file does not exist, has another format, or has another sample rate.
    """
    try:
        import soundfile
    except ImportError:
        soundfile = None
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        if soundfile is not None:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        else:
            with wave.open(str(path)) as file:
                if file.getsampwidth() != 2:
                    raise UserError(
                        f"{path} has samples of {8 * file.getsampwidth()} bits; without soundfile, only "
                        "16 bits can be read, so install soundfile"
                    )
                pcm, rate = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2"), file.getframerate()
                samples = pcm.reshape(-1, file.getnchannels()).astype(np.float32) / 32768
    except (wave.Error, EOFError, RuntimeError) as error:  # the error of soundfile is a RuntimeError
        raise UserError(f"{path} cannot be read: {error}") from error
    if rate != sample_rate:
        raise UserError(f"{path} has a sample rate of {rate} Hz, but the model needs {sample_rate} Hz; resample it")
    return samples.mean(axis=1)
