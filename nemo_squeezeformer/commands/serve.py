"""`nemo-squeezeformer serve`: a web page with live captions of a microphone, and with the text of audio files."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.commands.inputs import check_device, check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import (
    add_context,
    add_device,
    add_model,
    add_verbose,
    describe,
    positive,
    whole_number,
)
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import program, signals
from nemo_squeezeformer.process.causes import is_out_of_memory

if TYPE_CHECKING:
    from nemo_squeezeformer.serving.captions import Captions

PATIENCE = 3.0  # seconds after a signal in which the batch of a file can end; `docker stop` waits for 10 seconds
HELP = "open a web page to speak to a .nemo model, and to transcribe files"
DESCRIPTION = """\
Serve a web page. A person who opens the page speaks into a microphone and reads captions, or uploads a file and reads
the text with the times of the words. The page also offers the text and the subtitles of a file for download.

Several people can speak at once. The model processes the chunks of all people in batches. If all places are taken, the
next person waits in a line. The place of a person becomes free when the person stops, when the browser is closed, and
after some time without audio.

Live captions need a model that streams. For another model, the page only transcribes files, and shows why it has no
captions.

Without --host, only browsers on this machine reach the page. The page requests nothing from other servers, and the
server keeps no audio and no text. Ctrl-C ends the server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add_context(parser)
    add(
        "--speakers",
        type=_speakers,
        default=8,
        metavar="N",
        help="maximum number of people who speak at once (default: %(default)s)",
    )
    add("--host", default="127.0.0.1", help="address of this machine that serves the page (default: %(default)s)")
    add(
        "--name",
        type=_name,
        action="append",
        default=[],
        metavar="NAME",
        help="name of this server behind a reverse proxy, for example captions.example; repeat the option for more "
        "names",
    )
    add("--port", type=_port, default=7860, metavar="N", help="port, or 0 for any free port (default: %(default)s)")
    add(
        "--max-upload",
        type=positive,
        default=200,
        metavar="MEGABYTES",
        help="maximum size of a file (default: %(default)s)",
    )
    add(
        "--max-length",
        type=positive,
        default=3600,
        metavar="SECONDS",
        help="maximum length of a file, and of the captions of a person (default: %(default)s)",
    )
    add(
        "--idle",
        type=positive,
        default=30,
        metavar="SECONDS",
        help="time without audio after which the captions of a person end, and time without data after which an upload "
        "ends (default: %(default)s)",
    )
    add("--threads", type=positive, metavar="N", help="number of threads on the cpu (default: PyTorch's choice)")
    add("--decoder", choices=("ctc", "rnnt"), help="decoder of a hybrid model (default: the model's own choice)")
    add_device(parser)
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    """Serve the page until a signal arrives.

    Raises:
        UserError: there is no model file, or the address cannot be used. These checks come first. A later check fails
            if the model cannot be loaded, does not have the given latency, or needs too much memory for all speakers.
        KeyboardInterrupt: Ctrl-C or SIGTERM has arrived.
    """
    from nemo_squeezeformer.serving import server, web

    check_model(args.model)
    check_device(args.device)
    bound = server.bind(args.host, args.port)
    if not server.is_loopback(bound):
        say(
            f"warning: everyone who reaches {args.host} can use the page, which has no password and no encryption; "
            "browsers give the microphone only to pages at https:// addresses and at localhost"
        )
    limits = web.Limits(args.max_upload * 10**6, args.max_length, args.idle)
    with quiet(args.verbose):
        import torch

        from nemo_squeezeformer.serving import uploads
        from nemo_squeezeformer.transcription import models

        if args.threads:
            torch.set_num_threads(args.threads)
        # Captions and files need two models, because the threads use different contexts and decoders at the same time.
        model, for_files = (models.load_model(args.model, chosen_device(args.device), args.verbose) for _ in range(2))
        for each in (model, for_files):
            models.choose_decoder(each, args.decoder)
            models.optimize(each)
        uploads.share_weights(model, for_files)
        try:
            captions, reason, latency = _captions(model, args)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"out of memory with --speakers {args.speakers}: pass a smaller --speakers") from None
        transcribe = uploads.Uploads(for_files, args.max_length)
        page = web.Page(
            Path(args.model).name,
            transcribe,
            captions,
            limits,
            say,
            no_captions=reason,
            latency=latency,
            prepare=uploads.be_less_urgent,
            names=_names(args, server.is_loopback(bound)),
        )
        try:
            server.serve(page.application(), bound, lambda: say(f"the page is open at {server.address_of(bound)}"))
        finally:
            transcribe.stop()
            if captions:
                captions.stop()
            if not page.stop(PATIENCE) and signals.current.received:
                program.end_without_finalizing(signals.current.status)
    return 0


def _captions(model: Any, args: argparse.Namespace) -> tuple[Captions | None, str, int]:
    """Return the captions (or None), the reason why the model has no captions, and the latency in milliseconds."""
    from nemo_squeezeformer.serving.captions import Captions
    from nemo_squeezeformer.transcription.live.contexts import choose_context
    from nemo_squeezeformer.transcription.live.streams import Streams, latency

    try:
        described = choose_context(model, args.latency, args.att_context_size)
        streams = Streams(model, args.speakers)
    except ValueError as error:
        if args.latency or args.att_context_size:
            raise UserError(f"{args.model} cannot stream: {error}; leave out the latency to serve only files") from None
        say(f"the page has no live captions, because {args.model} cannot stream: {error}")
        return None, f"the model cannot stream ({error})", 0
    captions = Captions(streams, model.preprocessor._sample_rate, say)
    captions.start()
    say(f"latency {described}, speakers at once: {streams.slots}")
    return captions, "", latency(model)


def _names(args: argparse.Namespace, loopback: bool) -> set[str]:
    """Return the names under which browsers may open the page. Other machines also know the name of this machine."""
    return {args.host.lower(), *args.name, *(() if loopback else (socket.gethostname().lower(),))}


def _name(text: str) -> str:
    from nemo_squeezeformer.serving.names import name_in

    if not text or name_in(text) != text.lower():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name without https:// and without a port")
    return text.lower()


def _speakers(text: str) -> int:
    speakers = positive(text)
    if speakers > 1000:  # the memory for all places is taken at the start
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 to 1000")
    return speakers


def _port(text: str) -> int:
    port = whole_number(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 to 65535")
    return port
