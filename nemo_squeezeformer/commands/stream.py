"""Transcribe audio while it comes, with a NeMo model that streams: files, many at once, or standard input."""

import argparse
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from nemo_squeezeformer.commands import inputs
from nemo_squeezeformer.commands.inputs import check_channels, check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import add_model, add_transcribing, context_size, describe, positive
from nemo_squeezeformer.commands.transcripts import add_output, check_output, discard, finish, partial_of, report_errors
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance

HELP = "transcribe audio files or standard input while they come, with a .nemo model that streams"
DESCRIPTION = """\
Text is printed as it comes: on a terminal in one line that is updated, else as lines "SECONDS<tab>TEXT" (the last of a
long text), and at a stream's end "final<tab>TEXT"; of several streams, each line begins with the path and a tab. The
text is that of the whole recording under the same att_context_size. At the end, on stderr: the time that each chunk
took, the real-time factor, and the word error rate where rows of a manifest have a text."""
STDIN = "-"
SHOWN = 200  # characters of a text that is not final


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add(
        "inputs",
        metavar="AUDIO",
        nargs="+",
        help="audio files, folders (searched through), manifests (.json, .jsonl); - for raw 16-bit little-endian "
        "mono PCM on standard input",
    )
    context = parser.add_mutually_exclusive_group()
    context.add_argument(
        "--latency", type=positive, metavar="MS", help="milliseconds of audio a chunk (default: as the model is set)"
    )
    context.add_argument(
        "--att-context-size", type=context_size, metavar="LIST", help='the same by frames, as "[156, 11]": left, right'
    )
    add("--real-time", action="store_true", help="files as fast as they play; else as fast as the machine can")
    add("--sample-rate", type=positive, metavar="HZ", help="of standard input (default: the model's)")
    add("--batch-size", type=positive, default=16, metavar="N", help="streams at once (default: %(default)s)")
    add("--threads", type=positive, metavar="N", help="that compute on the cpu (default: PyTorch's choice)")
    add_output(parser, " too, each stream as it ends, in the order of the input when all have")
    add_transcribing(parser)


def main(args: argparse.Namespace) -> int:
    """0 when every stream has its text, 130 when interrupted: the text so far is final then.

    Raises:
        UserError: before anything slow: an input that is missing, unreadable or empty, an OUT that exists; then: a
            model that cannot stream, or not with this latency; standard input that is no 16-bit PCM.
    """
    stdin = STDIN in args.inputs
    if stdin and len(args.inputs) > 1:
        raise UserError(f"standard input (-) is one stream, alone; give {' '.join(args.inputs)} in calls of their own")
    if args.sample_rate and not stdin:
        raise UserError(f"--sample-rate {args.sample_rate} is for standard input (-); files say theirs")
    check_output(args.output, args.force, [args.model, *([] if stdin else args.inputs)])
    check_model(args.model)
    utterances = [Utterance({"audio_filepath": STDIN}, STDIN, 0.0, 0.0, 1)] if stdin else []
    if not stdin:
        utterances = inputs.utterances(args.inputs)
        check_channels(utterances, args.channel)
    stdout = sys.stdout
    with quiet(args.verbose):
        import torch

        from nemo_squeezeformer.transcription import models
        from nemo_squeezeformer.transcription.live.feature_stream import FeatureStream
        from nemo_squeezeformer.transcription.live.streams import Streams

        if args.threads:
            torch.set_num_threads(args.threads)
        model = models.load_model(args.model, chosen_device(args.device), args.verbose)
        models.choose_decoder(model, args.decoder)
        try:
            FeatureStream(model.preprocessor, 0)  # latencies count its frames
            latency = _choose_context(model, args)
            streams = Streams(model, min(args.batch_size, len(utterances)))
        except ValueError as error:
            raise UserError(f"{args.model} cannot stream: {error}") from None
        say(f"latency {latency}, streams at once: {streams.slots}")
        return _stream(model, streams, utterances, args, stdout)


def _choose_context(model: Any, args: argparse.Namespace) -> str:
    """Sets the encoder as asked, and says to what."""
    from nemo.collections.asr.parts.mixins.streaming import StreamingEncoder

    from nemo_squeezeformer.transcription.live.streams import latencies, latency

    encoder = model.encoder
    if not isinstance(encoder, StreamingEncoder):
        raise ValueError(f"an encoder of class {type(encoder).__name__} does not; take one whose encoder streams")
    if args.att_context_size:
        encoder.set_default_att_context_size(args.att_context_size)
    else:
        known = latencies(model)
        fitting = [size for size, ms in known.items() if args.latency in (None, ms)]
        if not fitting and known:
            has = ", ".join(f"{ms} ({list(size)})" for size, ms in sorted(known.items(), key=lambda item: item[1]))
            raise UserError(f"--latency {args.latency}: the model has {has} ms (att_context_size)")
        if fitting and tuple(encoder.att_context_size) not in fitting:
            encoder.set_default_att_context_size(list(fitting[0]))
    return f"{latency(model)} ms (att_context_size {list(encoder.att_context_size)})"


def _stream(model: Any, streams: Any, utterances: Sequence[Utterance], args: argparse.Namespace, stdout: TextIO) -> int:
    from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks, FileBlocks, PCMBlocks
    from nemo_squeezeformer.transcription.live.player import Player

    rate: int = model.preprocessor._sample_rate
    pcm = PCMBlocks(sys.stdin.buffer, args.sample_rate or rate, rate) if STDIN in args.inputs else None

    def blocks(index: int) -> AudioBlocks:
        return pcm or FileBlocks(utterances[index], rate, args.channel)

    player = Player(streams, blocks, len(utterances), rate, args.real_time and pcm is None)
    player.warm_up()
    start, texts = time.perf_counter(), dict[int, str]()
    partial = partial_of(args.output) if args.output else None
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(partial.open("w", encoding="utf-8")) if partial else None
        try:
            status = _play(player, utterances, texts, file, stdout, args.verbose)
        except BrokenPipeError:
            discard(stdout)
            return 1
    if pcm and not pcm.bytes and status == 0:
        if partial:
            partial.unlink()
        raise UserError("standard input had no audio; pipe raw 16-bit PCM into it, as ffmpeg -f s16le writes it")
    if partial and status == 0:
        finish(args.output, [_line(utterances[index], texts[index]) for index in range(len(utterances))])
    _report(player, args, time.perf_counter() - start)
    done = sorted(texts)
    report_errors([utterances[index] for index in done], [texts[index] for index in done])
    if partial:
        say(f"transcripts: {args.output if status == 0 else partial}")
    if pcm and pcm.odd and status == 0:
        raise UserError(
            f"standard input ended within a sample, after {pcm.bytes} bytes: 16-bit samples have two each; check that "
            "it is raw 16-bit PCM without a header (the text above is that of the whole samples)"
        )
    return status


def _play(
    player: Any,
    utterances: Sequence[Utterance],
    texts: dict[int, str],
    file: TextIO | None,
    stdout: TextIO,
    verbose: bool,
) -> int:
    """Shows what is heard, and puts final texts into ``texts`` and ``file``; 0, or 130 where Ctrl-C ended the audio."""
    screen = _Screen(stdout, [utterance.row["audio_filepath"] for utterance in utterances])

    def show() -> None:
        for step in player.play():
            for heard in step:
                if heard.final:
                    texts[heard.index] = heard.text
                    if file:
                        print(_line(utterances[heard.index], heard.text), file=file, flush=True)
                screen.show(heard)
            if verbose and player.timing.compute:
                say(f"chunk {len(player.timing.compute)}: {1000 * player.timing.compute[-1]:.1f} ms")

    try:
        show()
    except KeyboardInterrupt:
        say("interrupted: no more audio is taken")
        player.stop()
        show()
        return 130
    return 0


def _line(utterance: Utterance, text: str) -> str:
    return json.dumps({**utterance.row, "pred_text": text}, ensure_ascii=False)


class _Screen:
    """Texts as they come: one line that is updated on a terminal, else plain lines."""

    def __init__(self, stdout: TextIO, names: Sequence[Any]):
        self.stdout, self.terminal = stdout, stdout.isatty()
        self.names = [f"{name}\t" if len(names) > 1 else "" for name in names]

    def show(self, heard: Any) -> None:
        name, clear = self.names[heard.index], "\r\x1b[K" if self.terminal else ""
        if heard.final:
            mark = "" if self.terminal else "final\t"
            line = f"{clear}{name}{mark}{heard.text}\n"
        elif self.terminal:
            name = name.replace("\t", ": ")
            line = clear + name + _tail(heard.text, shutil.get_terminal_size().columns - len(name) - 1)
        else:
            line = f"{name}{heard.seconds:.2f}\t{_tail(heard.text, SHOWN)}\n"
        self.stdout.write(line)
        self.stdout.flush()


def _tail(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[len(text) - max(length, 1) + 1 :]


def _report(player: Any, args: argparse.Namespace, seconds: float) -> None:
    import numpy as np

    audio, compute = player.samples / player.rate, np.array(player.timing.compute)
    if not len(compute):
        return
    say(
        f"{audio:.1f} s of audio in {seconds:.1f} s: real-time factor {compute.sum() / audio:.4f} (compute / audio), "
        f"{len(compute)} chunks of up to {player.streams.slots} streams"
    )
    times = [("compute per chunk", compute), ("from a chunk's last sample to its text", np.array(player.timing.delay))]
    for what, figures in times:
        if len(figures):
            median, most, worst = 1000 * np.quantile(figures, [0.5, 0.95, 1.0])
            say(f"{what}: median {median:.1f} ms, 95 % {most:.1f} ms, at most {worst:.1f} ms")
