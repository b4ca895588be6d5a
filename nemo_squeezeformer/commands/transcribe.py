"""`nemo-squeezeformer transcribe`: transcribe audio files, folders and manifests with any NeMo ASR model."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.commands.inputs import check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import add_model, add_transcribing, context_size, describe, positive
from nemo_squeezeformer.commands.rows import transcripts
from nemo_squeezeformer.commands.rows.finished import Finished
from nemo_squeezeformer.commands.rows.partial_lines import Row, json_line
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance

if TYPE_CHECKING:
    from nemo_squeezeformer.transcription.hypotheses import Result

HELP = "transcribe audio files, folders or manifests with a .nemo model"
DESCRIPTION = """\
Transcribe utterances and write one line for each of them, in the order of the input.

Without --output, the command prints a line with the path, a tab and the transcript on stdout.

With --output, a line is a JSON object with the fields of the manifest row and pred_text. The longest utterances are
transcribed first. Batches then have little padding, and a batch that is too large for the memory fails at once. Each
finished batch is appended to OUT.partial. When all utterances are done, OUT.partial becomes OUT, in the order of the
input. After an interruption, --resume continues with the rows in OUT.partial.

At the end, stderr shows the hours of audio and the time. If the rows of a manifest have a text, stderr also shows the
word error rate.

If a recording cannot be read, the command continues. The row of this recording has the field error and no pred_text.
Without --output, a line on stderr names the recording. At the end, stderr lists these recordings, and the exit status
is 1."""

# The options that change the rows. With other values of these options, a run cannot be resumed.
ON_WHICH_ROWS_DEPEND = ("--att-context-size", "--decoder", "--channel", "--amp", "--timestamps", "--prompt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="audio files, folders with audio at any depth, manifests (.json, .jsonl, also with .gz)",
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
    """Transcribe all utterances and return 0, or 1 if the audio of some utterances cannot be read.

    Raises:
        UserError: an input cannot be read, no utterance can be used, or OUT exists. These checks come first.
            With ``--strict``, the command also checks first that it can open each input. A later check fails if the
            model or the device does not exist, if the model cannot have this ``--att-context-size``, if the memory is
            too small, or if the disk is full.
        KeyboardInterrupt: Ctrl-C or SIGTERM has arrived. OUT.partial has the finished rows.
    """
    transcripts.check_output(args.output, args.force, [args.model, *args.inputs], args.resume)
    check_model(args.model)
    with transcripts.opened_partial(args) as partial:
        utterances = transcripts.read_inputs(args)
        usable = transcripts.usable(utterances)
        status = transcripts.status_of_complete(partial, utterances, args)
        if status is not None:
            return status
        done = transcripts.begin(partial, utterances, args, *ON_WHICH_ROWS_DEPEND)
        finished = Finished(utterances, partial, done, args.strict, json_line if args.timestamps else _line)
        with quiet(args.verbose):
            from nemo_squeezeformer.transcription import long_audio, memory, models
            from nemo_squeezeformer.transcription.hypotheses import decoding_config

            memory.keep_memory()
            model = models.load_model(args.model, chosen_device(args.device), args.verbose)
            good = [utterances[index] for index in usable]
            if args.att_context_size:
                say(long_audio.set_context(model, args.att_context_size))
            notice = long_audio.notice_of_memory(model, good, args.batch_size)
            if notice:
                say(notice)
            models.optimize(model)
            models.choose_decoder(model, args.decoder)
            config = decoding_config(model, good, args.timestamps, dict(args.prompt))
            if args.timestamps:
                models.enable_timestamps(model)
            return _transcribe(model, config, [index for index in usable if index not in done], finished, args)


def _slot(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _transcribe(model: Any, config: Any, order: list[int], finished: Finished, args: argparse.Namespace) -> int:
    """Transcribe the utterances with the indices ``order``, and return the exit status."""
    import torch

    from nemo_squeezeformer.transcription.hypotheses import decode

    utterances, partial = finished.utterances, finished.partial
    if partial:  # the sort is stable: utterances of one length keep their order
        order = sorted(order, key=lambda index: -utterances[index].duration)
    waiting = [utterances[index] for index in order]
    device = next(model.parameters()).device.type
    workers = 4 * (device == "cuda") if args.num_workers is None else args.num_workers
    try:
        finished.add([(i, transcripts.row_of(u, error=u.problem)) for i, u in enumerate(utterances) if u.problem])
        batches = decode(model, config, waiting, args.batch_size, workers, args.channel)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if args.amp:
                stack.enter_context(torch.autocast(device, torch.bfloat16 if args.amp == "bf16" else torch.float16))
            _decode_all(batches, order, finished)
        if len(finished.rows) != len(utterances):
            raise RuntimeError(
                f"{type(model).__name__} returned {len(finished.rows)} transcripts for {len(utterances)} utterances"
            )
        if partial:
            partial.finish()
    except torch.cuda.OutOfMemoryError:
        raise _out_of_memory(waiting, args) from None
    except KeyboardInterrupt as interruption:
        if partial:
            raise  # the message comes from transcripts.opened_partial
        raise type(interruption)(f"{len(finished.rows)} of {len(utterances)} utterances are done") from None
    seconds = time.perf_counter() - start
    read = [utterances[index] for index in order if "error" not in finished.rows[index]]
    _report(read, seconds, device, args)
    rows = finished.in_order()
    transcripts.report_errors(rows)
    status = transcripts.report_problems([row["error"] for row in rows if "error" in row], len(rows))
    if args.output:
        say(f"transcripts: {args.output}")
    return status


def _decode_all(batches: Iterator[list[Result]], order: Sequence[int], finished: Finished) -> None:
    from tqdm import tqdm

    indices = iter(order)
    with tqdm(total=len(order), unit=" utterances", desc="transcribing", disable=None) as bar:
        for batch in batches:
            finished.add([(index, _row(finished.utterances[index], result)) for result, index in zip(batch, indices)])
            bar.update(len(batch))


def _out_of_memory(utterances: Sequence[Utterance], args: argparse.Namespace) -> UserError:
    from nemo_squeezeformer.transcription.long_audio import REMEDY

    longest = max(utterance.duration for utterance in utterances)
    return UserError(
        f"out of memory with --batch-size {args.batch_size} (the longest utterance has {longest:.0f} s): pass a "
        f"smaller --batch-size, --amp bf16, or {REMEDY}"
    )


def _row(utterance: Utterance, result: Result) -> Row:
    if result.problem:
        return transcripts.row_of(utterance, error=result.problem)
    best = result.best
    row = transcripts.row_of(utterance, pred_text=best if isinstance(best, str) else best.text)
    if isinstance(getattr(best, "timestamp", None), dict):
        row["timestamps"] = {
            kind: [
                {kind: item[kind], "start": round(float(item["start"]), 3), "end": round(float(item["end"]), 3)}
                for item in best.timestamp[kind]
            ]
            for kind in ("word", "segment")
            if kind in best.timestamp
        }
    return row


def _line(row: Row) -> str:
    return "" if "error" in row else f"{row['audio_filepath']}\t{row['pred_text']}"


def _report(utterances: Sequence[Utterance], seconds: float, device: str, args: argparse.Namespace) -> None:
    audio = sum(utterance.duration for utterance in utterances)
    if audio:
        say(
            f"{len(utterances)} utterances, {audio / 3600:.3f} h of audio in {seconds:.1f} s on {device}, batch size "
            f"{args.batch_size}: RTFx {audio / seconds:.1f} (audio / time), RTF {seconds / audio:.4f} (time / audio)"
        )
