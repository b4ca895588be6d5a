"""``python -m nemo_squeezeformer.onnx_stream MODEL.onnx AUDIO...``: prints text as the audio goes through."""

from __future__ import annotations

import argparse
import sys
import time
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.decoding import build_decoder
from nemo_squeezeformer.deployment.onnx_stream.features import LogMel
from nemo_squeezeformer.deployment.onnx_stream.metadata import ORIGINAL
from nemo_squeezeformer.deployment.onnx_stream.original_features import original_features
from nemo_squeezeformer.deployment.onnx_stream.session import Encoder, Stream
from nemo_squeezeformer.deployment.token_text import text
from nemo_squeezeformer.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """On stdout the path, a tab, the text; before that on stderr what there is of it so far, at each change."""
    parser = argparse.ArgumentParser(prog="python -m nemo_squeezeformer.onnx_stream", description=__doc__)
    parser.add_argument(
        "model", help="what `nemo-squeezeformer export` wrote, by the name that it was given", type=Path
    )
    parser.add_argument("audio", nargs="+", help="wav files at the model's sample rate", type=Path)
    parser.add_argument("--quiet", action="store_true", help="the final texts alone")
    args = parser.parse_args(argv)
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
    except UserError as error:
        print(f"onnx_stream: error: {error}", file=sys.stderr)
        return 2
    return 0


def transcribe(encoder: Encoder, samples: np.ndarray) -> Iterator[tuple[float, str]]:
    """(n,) samples -> after each step how many seconds went in, and the text so far; the last has all of it.

    With features that need the whole utterance, there is one step.
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
    """(n,) the samples of a file in -1 ... 1, the average of its channels; without soundfile, of 16-bit wav alone.

    Raises:
        UserError: for a file that is missing, of another format, or of another sample rate.
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
                        f"{path} has samples of {8 * file.getsampwidth()} bits; for these install soundfile"
                    )
                pcm, rate = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2"), file.getframerate()
                samples = pcm.reshape(-1, file.getnchannels()).astype(np.float32) / 32768
    except (wave.Error, EOFError, RuntimeError) as error:  # soundfile's own is a RuntimeError
        raise UserError(f"{path} cannot be read: {error}") from error
    if rate != sample_rate:
        raise UserError(f"{path} has a sample rate of {rate} Hz, the model {sample_rate} Hz; resample it first")
    return samples.mean(axis=1)


if __name__ == "__main__":
    sys.exit(main())
