"""`nemo-squeezeformer stream`: transcribe audio files or standard input in chunks with a NeMo model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.commands.inputs import check_device, check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import (
    add_context,
    add_model,
    add_transcribing,
    describe,
    number,
    positive,
    whole_number,
)
from nemo_squeezeformer.commands.rows import transcripts
from nemo_squeezeformer.commands.rows.finished import Finished
from nemo_squeezeformer.commands.rows.screen import Screen
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.process.causes import is_out_of_memory

HELP = "transcribe audio files or standard input in chunks, with a .nemo model"
DESCRIPTION = """\
Transcribe audio in chunks and print the text after each chunk. The final text of a model that streams equals the text
of the whole recording with the same att_context_size.

For a model that was trained offline, the command cuts the audio into overlapping windows. A window has earlier audio, a
chunk and later audio, and gives the text of the chunk. The final text can differ from the text of the whole recording.
The latency is the length of the chunk plus the length of the later audio (default: 4000 ms).

On a terminal, the command updates one line. Otherwise the command prints a line "SECONDS<tab>TEXT" when the text has
grown. If the text is long, TEXT is only the end of the text. At the end of a stream, the command prints
"final<tab>TEXT" with the whole text. With several streams, each line begins with the path and a tab.

With --timestamps, the command prints a line "word<tab>START<tab>END<tab>WORD" when a word is complete. With --endpoint,
the command prints a line "utterance<tab>START<tab>END<tab>TEXT" when an utterance has ended. The times are in seconds
from the start of the audio.

After the last stream, stderr shows the time per chunk and the real-time factor. If the rows of a manifest have a text,
stderr also shows the word error rate.

If a recording cannot be read to its end, the other streams continue. The text so far is the final text. The row of the
recording in OUT has the field error. At the end, stderr lists these recordings, and the exit status is 1."""
# The options that change the rows. With other values of these options, a run cannot be resumed.
ON_WHICH_ROWS_DEPEND = [
    *("--latency", "--att-context-size", "--decoder", "--channel"),
    *("--chunk", "--window", "--timestamps", "--endpoint"),
]
STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add(
        "inputs",
        metavar="AUDIO",
        nargs="+",
        help="audio files, folders with audio at any depth, manifests (.json, .jsonl, also with .gz); - for raw 16-bit "
        "little-endian mono PCM on standard input",
    )
    add_context(parser)
    add(
        "--chunk",
        type=_seconds,
        metavar="SECONDS",
        help="transcribe overlapping windows, with this length of new audio in each window (default: half the latency; "
        "without --chunk and --window, a model that streams has no windows)",
    )
    add(
        "--window",
        type=_seconds,
        metavar="SECONDS",
        help="transcribe overlapping windows of this length (default: the latency and 10 seconds)",
    )
    add("--timestamps", action="store_true", help="also print the words with their times, and write them to OUT")
    add(
        "--endpoint",
        type=_seconds,
        metavar="SECONDS",
        help="also print the utterances with their times, and write them to OUT: an utterance ends when no token "
        "follows for this time, for example 1.2",
    )
    add(
        "--real-time",
        action="store_true",
        help="process files at the speed of playing them (default: as fast as possible)",
    )
    add("--sample-rate", type=_rate, metavar="HZ", help="sample rate of standard input (default: the model's)")
    add("--batch-size", type=positive, default=16, metavar="N", help="number of streams at once (default: %(default)s)")
    add("--threads", type=positive, metavar="N", help="number of threads on the cpu (default: PyTorch's choice)")
    transcripts.add_output(
        parser, "; each finished stream is appended to OUT.partial, and OUT has the order of the input"
    )
    add_transcribing(parser)


def _rate(text: str) -> int:
    rate = whole_number(text)
    if not 1_000 <= rate <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text}: expected a sample rate in Hz from 1000 to 1000000")
    return rate


def _seconds(text: str) -> float:
    seconds = number(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds from 0 to 3600")
    return seconds


def main(args: argparse.Namespace) -> int:
    """Transcribe all streams and return 0, or 1 if the audio of some streams cannot be read to the end.

    Raises:
        UserError: an input cannot be read, no utterance can be used, or OUT exists. These checks come first.
            With ``--strict``, the command also checks first that it can open each input. A later check fails if the
            model has neither a CTC nor a transducer decoder, if the model cannot stream with this context or latency,
            or if standard input is not 16-bit PCM.
        KeyboardInterrupt: Ctrl-C or SIGTERM has arrived. The text so far has become the final text.
    """
    stdin = STDIN in args.inputs
    if stdin and len(args.inputs) > 1:
        raise UserError(
            f"standard input (-) cannot be combined with other inputs; give each of {' '.join(args.inputs)} in a "
            "separate call"
        )
    if args.sample_rate and not stdin:
        raise UserError(
            f"--sample-rate {args.sample_rate} is for standard input (-), because files contain their sample rate; "
            "leave out --sample-rate"
        )
    if args.resume and stdin:
        raise UserError("--resume: standard input (-) cannot be read again; leave out --resume")
    transcripts.check_output(args.output, args.force, [args.model, *([] if stdin else args.inputs)], args.resume)
    check_model(args.model)
    check_device(args.device)
    with transcripts.opened_partial(args) as partial:
        pcm = Utterance({"audio_filepath": STDIN}, STDIN, 0.0, 0.0, 1)
        utterances = [pcm] if stdin else transcripts.read_inputs(args)
        usable = transcripts.usable(utterances)
        status = transcripts.status_of_complete(partial, utterances, args)
        if status is not None:
            return status
        done = transcripts.begin(partial, utterances, args, *ON_WHICH_ROWS_DEPEND)
        finished = Finished(utterances, partial, done, args.strict)
        with quiet(args.verbose):
            import torch

            from nemo_squeezeformer.transcription import models

            if args.threads:
                torch.set_num_threads(args.threads)
            model = models.load_model(args.model, chosen_device(args.device), args.verbose)
            models.choose_decoder(model, args.decoder)
            waiting = [index for index in usable if index not in done]
            try:
                streams, latency = _streams(model, max(min(args.batch_size, len(waiting)), 1), args)
                say(f"latency {latency}, streams at once: {streams.slots}")
                return _stream(model, streams, waiting, finished, args)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = f"out of memory with --batch-size {args.batch_size}: pass a smaller --batch-size"
                raise UserError(problem) from None


def _streams(model: Any, slots: int, args: argparse.Namespace) -> tuple[Any, str]:
    """Return ``Streams`` or ``WindowStreams``, and a description of the latency."""
    from nemo_squeezeformer.transcription import models
    from nemo_squeezeformer.transcription.live.contexts import choose_context, set_context
    from nemo_squeezeformer.transcription.live.streams import Streams
    from nemo_squeezeformer.transcription.live.window_streams import WindowStreams, choose_window

    times = {"words": args.timestamps, "silence": args.endpoint}
    models.optimize(model)
    try:
        if not args.chunk and not args.window:
            try:
                latency = choose_context(model, args.latency, args.att_context_size)
                return Streams(model, slots, **times), latency
            except ValueError as error:
                if args.att_context_size:
                    raise
                reason = str(error).partition(";")[0]
                say(f"{args.model} was not trained for streams ({reason}): the audio is cut into windows")
        elif args.att_context_size:
            set_context(model, args.att_context_size)
        window, latency = choose_window(model, args.latency, args.chunk, args.window)
        return WindowStreams(model, slots, window, **times), latency
    except ValueError as error:
        raise UserError(f"{args.model} cannot stream: {error}") from None


def _stream(model: Any, streams: Any, waiting: Sequence[int], finished: Finished, args: argparse.Namespace) -> int:
    """Transcribe the streams with the indices ``waiting``, and return the exit status."""
    from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks, FileBlocks, PCMBlocks
    from nemo_squeezeformer.transcription.live.player import Player

    rate: int = model.preprocessor._sample_rate
    pcm = PCMBlocks(sys.stdin.buffer, args.sample_rate or rate, rate) if STDIN in args.inputs else None
    utterances = finished.utterances

    def blocks(index: int) -> AudioBlocks:
        return pcm or FileBlocks(utterances[index], rate, args.channel)

    player = Player(streams, blocks, waiting, rate, args.real_time and pcm is None)
    player.warm_up()
    start = time.perf_counter()
    screen = Screen(finished.stdout, [utterance.row.get("audio_filepath", "") for utterance in utterances])
    finished.add([(i, transcripts.row_of(u, error=u.problem)) for i, u in enumerate(utterances) if u.problem])
    interruption = _play(player, finished, screen, args.verbose)
    if pcm and not pcm.bytes and not interruption:
        if finished.partial:
            finished.partial.remove()
        raise UserError("standard input has no audio; pipe raw 16-bit PCM into it, for example from ffmpeg -f s16le")
    if finished.partial and not interruption:
        finished.partial.finish()
    _report(player, args, time.perf_counter() - start)
    rows = finished.in_order()
    transcripts.report_errors(rows)
    status = transcripts.report_problems([row["error"] for row in rows if "error" in row], len(utterances))
    if interruption:
        raise type(interruption)("the text so far is the final text" if not finished.partial else "")
    if finished.partial:
        say(f"transcripts: {args.output}")
    if pcm and pcm.odd:
        raise UserError(
            f"standard input ended within a sample, after {pcm.bytes} bytes: 16-bit samples have two bytes each; check "
            "that the input is raw 16-bit PCM without a header (the text above is the text of the complete samples)"
        )
    return status


def _play(player: Any, finished: Finished, screen: Screen, verbose: bool) -> KeyboardInterrupt | None:
    """Show all texts, and write the final texts. Return the interruption that has ended the audio, or None."""

    def show(whole: bool) -> None:
        for step in player.play():
            for heard in step:
                screen.show(heard)
                if heard.final:
                    error = {"error": heard.problem} if heard.problem else {}
                    timestamps = {"timestamps": heard.timestamps} if heard.timestamps else {}
                    row = transcripts.row_of(
                        finished.utterances[heard.index], pred_text=heard.text, **timestamps, **error
                    )
                    finished.add([(heard.index, row)], whole)
            if verbose and player.timing.compute:
                say(f"chunk {len(player.timing.compute)}: {1000 * player.timing.compute[-1]:.1f} ms")

    try:
        show(True)
    except KeyboardInterrupt as interruption:
        say("interrupted: no more audio is read")
        player.stop()
        show(False)
        return interruption
    return None


def _report(player: Any, args: argparse.Namespace, seconds: float) -> None:
    import numpy as np

    audio, compute = player.samples / player.rate, np.array(player.timing.compute)
    if not len(compute) or not audio:
        return
    say(
        f"{audio:.1f} s of audio in {seconds:.1f} s: real-time factor {compute.sum() / audio:.4f} (compute / audio), "
        f"{len(compute)} chunks with up to {player.streams.slots} streams at once"
    )
    times = [
        ("compute per chunk", compute),
        ("delay from the last sample of a chunk to its text", np.array(player.timing.delay)),
    ]
    for what, figures in times:
        if len(figures):
            median, most, worst = 1000 * np.quantile(figures, [0.5, 0.95, 1.0])
            say(f"{what}: median {median:.1f} ms, 95th percentile {most:.1f} ms, maximum {worst:.1f} ms")
