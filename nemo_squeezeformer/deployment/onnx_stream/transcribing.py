"""The transcription of recordings with an exported model: the text is printed while the model reads the audio."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.decoding import Timed, build_decoder
from nemo_squeezeformer.deployment.onnx_stream.features import LogMel
from nemo_squeezeformer.deployment.onnx_stream.recordings import STDIN, recordings
from nemo_squeezeformer.deployment.onnx_stream.session import Encoder, Stream
from nemo_squeezeformer.deployment.onnx_stream.utterance_features import utterance_features
from nemo_squeezeformer.deployment.token_text import text
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks
from nemo_squeezeformer.transcription.live.streamed_text import StreamedText
from nemo_squeezeformer.transcription.word_times import WordTimes, in_seconds


def print_texts(args: argparse.Namespace) -> int:
    """Print the path, a tab and the text of each recording to stdout, and each change of the text to stderr. Return 0.

    Raises:
        UserError: the model or a recording cannot be read, or the metadata of the model does not fit the graph.
        KeyboardInterrupt: Ctrl-C has arrived. The text so far is printed.
    """
    try:
        encoder = Encoder(args.model)
        for name, blocks in recordings(args.audio, encoder.metadata["features"]["sample_rate"], args.sample_rate):
            try:
                _print(encoder, name, blocks, args)
            finally:
                blocks.close()
    except (LookupError, TypeError, ValueError, MemoryError) as error:  # for example a token without a text
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        message = f"{args.model}: the metadata does not fit the graph ({reason}); export the model again"
        raise UserError(message) from error
    return 0


class Reader:
    """The samples of ``blocks``. Ctrl-C ends the audio: the samples so far are still transcribed.

    Attributes:
        interruption: the Ctrl-C that has ended the audio, or None.
    """

    def __init__(self, blocks: AudioBlocks):
        self.blocks = blocks
        self.interruption: KeyboardInterrupt | None = None

    def read(self, samples: int) -> np.ndarray:
        """Return the next samples (T,). T is ``samples``, or less at the end of the audio."""
        try:
            return self.blocks.read(samples)
        except KeyboardInterrupt as error:
            self.interruption = error
            self.blocks.stop()
            return self.blocks.read(samples)


def _print(encoder: Encoder, name: str, blocks: AudioBlocks, args: argparse.Namespace) -> None:
    start, seconds, reader = time.perf_counter(), 0.0, Reader(blocks)
    write = partial(text, described=encoder.metadata)
    shown, words = StreamedText(write), WordTimes(write)
    try:
        for seconds, added in transcribe(encoder, reader):
            shown.extend([token for token, _ in added])
            if args.timestamps:
                words.extend(added)
            if added and not args.quiet:
                print(f"{seconds:7.2f} s  {shown}", file=sys.stderr)
    except KeyboardInterrupt as error:
        reader.interruption = error
    if blocks.problem:
        raise UserError(blocks.problem)
    if name == STDIN and not seconds and reader.interruption is None:
        raise UserError("standard input has no audio; pipe raw 16-bit PCM into it, for example from ffmpeg -f s16le")
    print(f"{name}\t{shown}", flush=True)
    if args.timestamps:
        for row in in_seconds(words.words, "word", encoder.frame_seconds):
            print(f"{name}\tword\t{row['start']:.2f}\t{row['end']:.2f}\t{row['word']}", flush=True)
    if reader.interruption is not None:
        raise reader.interruption
    if not args.quiet:
        print(f"{seconds:.2f} s of audio in {time.perf_counter() - start:.2f} s", file=sys.stderr)


def transcribe(encoder: Encoder, reader: Reader) -> Iterator[tuple[float, list[Timed]]]:
    """After each step, yield the duration of the audio so far in seconds, and the new tokens with their frames.

    A graph for whole utterances runs a single step at the end of the audio.
    """
    settings, decoder = encoder.metadata["features"], build_decoder(encoder.metadata, encoder.path)
    rate, heard = settings["sample_rate"], 0
    if encoder.metadata["steps"] is None:
        samples = np.concatenate([np.zeros(0, np.float32), *_pieces(reader, 60 * rate)])
        features = utterance_features(samples, settings)
        yield len(samples) / rate, decoder.step(encoder.utterance(features)) if features.shape[1] else []
        return
    log_mel, stream = LogMel(settings), Stream(encoder)
    piece, ended = encoder.shift * settings["hop"], False
    while not ended:
        samples = reader.read(piece)
        ended, heard = len(samples) < piece, heard + len(samples)
        steps = stream.push(log_mel.push(samples))
        if ended:
            steps += stream.push(log_mel.finish()) + stream.finish()
        for outputs in steps:
            yield heard / rate, decoder.step(outputs)
    yield heard / rate, []


def _pieces(reader: Reader, samples: int) -> Iterator[np.ndarray]:
    while len(piece := reader.read(samples)):
        yield piece
