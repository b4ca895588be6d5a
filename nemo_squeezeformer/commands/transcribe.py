"""`nemo-squeezeformer transcribe`: transcribe audio files, folders and manifests with any NeMo ASR model."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from nemo_squeezeformer.commands import inputs, transcripts
from nemo_squeezeformer.commands.inputs import check_channels, check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import add_model, add_transcribing, context_size, describe, positive
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance

HELP = "transcribe audio files, folders or manifests with a .nemo model"
DESCRIPTION = """\
Transcribe utterances and write one line for each of them, in the order of the input.

Without --output, the command prints a line with the path, a tab and the transcript on stdout.

With --output, a line is a JSON object with the fields of the manifest row and pred_text. The longest utterances are
transcribed first. Batches then have little padding, and a batch that is too large for the memory fails at once. Each
finished batch is appended to OUT.partial. When all utterances are done, OUT.partial becomes OUT, in the order of the
input.

At the end, stderr shows the hours of audio and the time. If the rows of a manifest have a text, stderr also shows the
word error rate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="audio files, folders with audio at any depth, manifests (.json, .jsonl)",
    )
    transcripts.add_output(parser, " instead of printing transcripts on stdout")
    add(
        "--batch-size",
        type=positive,
        default=16,
        metavar="N",
        help="utterances per batch (default: %(default)s); a batch of long utterances has fewer utterances, with at "
        "most an hour of padded audio",
    )
    add(
        "--att-context-size",
        type=context_size,
        metavar="LIST",
        help='numbers of encoder frames to the left and right that attention sees, for example "[128, 128]"; time and '
        "memory are then linear in the length (default: the model's setting)",
    )
    add("--num-workers", type=int, metavar="N", help="processes that read audio (default: 0 on cpu, 4 on cuda)")
    add("--amp", choices=("bf16", "fp16"), help="automatic mixed precision (default: the model's own precision)")
    add(
        "--timestamps",
        action="store_true",
        help="add the words and segments, with start and end in seconds from the start of the utterance",
    )
    add(
        "--prompt",
        type=_slot,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of a slot of an AED model's prompt; repeat the option for more slots",
    )
    add_transcribing(parser)


def main(args: argparse.Namespace) -> int:
    """Transcribe all utterances and return 0, or 130 after Ctrl-C.

    Raises:
        UserError: an input is missing, unreadable or empty, or OUT exists. The command checks these cases first. A
            later check fails if the model or the device does not exist, if the model cannot have this
            ``--att-context-size``, or if the memory is too small.
    """
    transcripts.check_output(args.output, args.force, [args.model, *args.inputs])
    check_model(args.model)
    utterances = inputs.utterances(args.inputs)
    check_channels(utterances, args.channel)
    stdout = sys.stdout
    with quiet(args.verbose):
        from nemo_squeezeformer.transcription import long_audio, memory, models
        from nemo_squeezeformer.transcription.hypotheses import decoding_config

        memory.keep_memory()
        model = models.load_model(args.model, chosen_device(args.device), args.verbose)
        if args.att_context_size:
            say(long_audio.set_context(model, args.att_context_size))
        notice = long_audio.notice_of_memory(model, utterances, args.batch_size)
        if notice:
            say(notice)
        models.optimize(model)
        models.choose_decoder(model, args.decoder)
        config = decoding_config(model, utterances, args.timestamps, dict(args.prompt))
        if args.timestamps:
            models.enable_timestamps(model)
        return _transcribe(model, config, utterances, args, stdout)


def _slot(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _transcribe(
    model: Any, config: Any, utterances: Sequence[Utterance], args: argparse.Namespace, stdout: TextIO
) -> int:
    import torch

    from nemo_squeezeformer.transcription.hypotheses import decode

    # The sort is stable: utterances of one length keep their order.
    order = sorted(range(len(utterances)), key=lambda index: -utterances[index].duration if args.output else 0.0)
    device = next(model.parameters()).device.type
    workers = 4 * (device == "cuda") if args.num_workers is None else args.num_workers
    batches = decode(model, config, [utterances[index] for index in order], args.batch_size, workers, args.channel)
    done: dict[int, tuple[str, str]] = {}  # index of the utterance -> text and line of the utterance
    partial = transcripts.partial_of(args.output) if args.output else None
    opened = transcripts.open_partial(args.output, args.force) if partial else None
    start = time.perf_counter()
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(opened) if opened else stdout
            if args.amp:
                stack.enter_context(torch.autocast(device, torch.bfloat16 if args.amp == "bf16" else torch.float16))
            _decode_all(batches, order, utterances, done, file, args)
        if len(done) != len(order):
            raise RuntimeError(f"{type(model).__name__} returned {len(done)} transcripts for {len(order)} utterances")
        if partial:
            transcripts.finish(args.output, [done[index][1] for index in range(len(done))])
    except torch.cuda.OutOfMemoryError:
        raise _out_of_memory(utterances, args) from None
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        transcripts.discard(stdout)
        return 1
    finally:
        if partial and partial.exists():
            if done:
                say(f"{len(done)} of {len(order)} utterances are done: their transcripts are in {partial}")
            else:
                partial.unlink()
    _report(utterances, [done[index][0] for index in range(len(done))], time.perf_counter() - start, device, args)
    return 0


def _decode_all(
    batches: Iterator[list[Any]],
    order: Sequence[int],
    utterances: Sequence[Utterance],
    done: dict[int, tuple[str, str]],
    file: TextIO,
    args: argparse.Namespace,
) -> None:
    """Write the lines of each batch to ``file`` and to ``done``. After an interruption, ``done`` is still valid."""
    from tqdm import tqdm

    with tqdm(total=len(order), unit=" utterances", desc="transcribing", disable=None) as bar:
        for batch in batches:
            for index, best in zip(order[len(done) :], batch):
                text = best if isinstance(best, str) else best.text
                done[index] = text, _line(utterances[index], text, best, args)
                bar.write(done[index][1], file=file)
            file.flush()
            bar.update(len(batch))


def _out_of_memory(utterances: Sequence[Utterance], args: argparse.Namespace) -> UserError:
    from nemo_squeezeformer.transcription.long_audio import REMEDY

    longest = max(utterance.duration for utterance in utterances)
    return UserError(
        f"out of memory with --batch-size {args.batch_size} (the longest utterance has {longest:.0f} s): pass a "
        f"smaller --batch-size, --amp bf16, or {REMEDY}"
    )


def _line(utterance: Utterance, text: str, best: Any, args: argparse.Namespace) -> str:
    if not args.output and not args.timestamps:
        return f"{utterance.row['audio_filepath']}\t{text}"
    row = {**utterance.row, "pred_text": text}
    if args.timestamps:
        row["timestamps"] = {
            kind: [
                {kind: item[kind], "start": round(float(item["start"]), 3), "end": round(float(item["end"]), 3)}
                for item in best.timestamp[kind]
            ]
            for kind in ("word", "segment")
            if kind in best.timestamp
        }
    return json.dumps(row, ensure_ascii=False)


def _report(
    utterances: Sequence[Utterance], texts: Sequence[str], seconds: float, device: str, args: argparse.Namespace
) -> None:
    audio = sum(utterance.duration for utterance in utterances)
    say(
        f"{len(utterances)} utterances, {audio / 3600:.3f} h of audio in {seconds:.1f} s on {device}, batch size "
        f"{args.batch_size}: RTFx {audio / seconds:.1f} (audio / time), RTF {seconds / audio:.4f} (time / audio)"
    )
    transcripts.report_errors(utterances, texts)
    if args.output:
        say(f"transcripts: {args.output}")
