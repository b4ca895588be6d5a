"""`nemo-squeezeformer transcribe`: transcribe audio files, folders and manifests with any NeMo ASR model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.commands import decoding_options
from nemo_squeezeformer.commands.inputs import check_device, check_model, chosen_device, quiet, say
from nemo_squeezeformer.commands.options import (
    add_model,
    add_transcribing,
    context_size,
    describe,
    not_negative,
    positive,
)
from nemo_squeezeformer.commands.rows import cut_options, formats, transcripts
from nemo_squeezeformer.commands.rows.decoded_rows import transcribe
from nemo_squeezeformer.commands.rows.finished import Finished
from nemo_squeezeformer.commands.rows.partial_lines import Row
from nemo_squeezeformer.commands.rows.recording_names import by_name
from nemo_squeezeformer.commands.rows.rendering import line_of
from nemo_squeezeformer.files.manifests import Utterance

HELP = "transcribe audio files, folders or manifests with a .nemo model"
DESCRIPTION = """\
Transcribe utterances and write one line for each of them, in the order of the input.

Without --output, the command prints a line with the path, a tab and the transcript on stdout. With --output, a line is
a JSON object with the fields of the manifest row and pred_text. --format selects another format: text, subtitles or the
words with their times.

Recordings of a minute or more are cut at pauses if the extra vad is installed. The pieces are transcribed in batches.
Times still count from the start of the utterance. --cut selects which recordings are cut. If a cut recording has no
speech, the text is empty.

With --output, the longest utterances are transcribed first. Batches then have little padding, and a batch that is too
large for the memory fails at once. Each finished batch is appended to OUT.partial. When all utterances are done,
OUT.partial becomes OUT, in the order of the input. After an interruption, --resume continues with the rows in
OUT.partial.

At the end, stderr shows the hours of audio and the time. If the rows of a manifest have a text, stderr also shows the
word error rate.

If a recording cannot be read, the command continues. The row of this recording has the field error and no pred_text.
Other formats than JSON lines leave the recording out. Without --output, a line on stderr names the recording. At the
end, stderr lists these recordings, and the exit status is 1."""

# The options that change the rows. With other values of these options, a run cannot be resumed.
ON_WHICH_ROWS_DEPEND = (
    *("--att-context-size", "--decoder", "--channel", "--amp", "--timestamps", "--prompt"),
    *decoding_options.ON_WHICH_ROWS_DEPEND,
    *cut_options.ON_WHICH_ROWS_DEPEND,
)


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
    transcripts.add_output(parser, " instead of printing transcripts on stdout", "write to this file or folder")
    formats.add_format(parser)
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
    workers = "processes that read audio (default: 0 on cpu, 4 on cuda)"
    add("--num-workers", type=not_negative, metavar="N", help=workers)
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
    cut_options.add_cut(parser)
    decoding_options.add_decoding(parser)
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
    formats.choose_format(args)
    formats.check_output(args)
    check_model(args.model)
    check_device(args.device)
    decoding_options.check(args)
    with transcripts.opened_partial(args) as partial:
        utterances = transcripts.read_inputs(args)
        usable = transcripts.usable(utterances)
        formats.check_recordings(utterances, args)
        cut_options.choose_cut(args, utterances)
        done, status = formats.begin(partial, utterances, args, *ON_WHICH_ROWS_DEPEND)
        if status is not None:
            return status
        recordings = by_name(utterances) if args.format == "ctm" else {}
        names = {index: name for name, indices in recordings.items() for index in indices}

        def line(index: int, row: Row) -> str:
            return line_of(args.format, utterances[index], row, names.get(index, ""))

        finished = Finished(utterances, partial, done, args.strict, line)
        with quiet(args.verbose):
            from nemo_squeezeformer.transcription import memory

            memory.keep_memory()
            memory.limit_kernels()
            model, config = _prepared([utterances[index] for index in usable], args)
            return transcribe(model, config, [index for index in usable if index not in done], finished, args)


def _prepared(utterances: Sequence[Utterance], args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the model and NeMo's configuration for the decoding of the utterances."""
    from nemo_squeezeformer.transcription import long_audio, models
    from nemo_squeezeformer.transcription.hypotheses import decoding_config

    model = models.load_model(args.model, chosen_device(args.device), args.verbose)
    if args.att_context_size:
        say(long_audio.set_context(model, args.att_context_size))
    whole = [utterance for utterance in utterances if not cut_options.is_cut(args, utterance)]
    if whole and (notice := long_audio.notice_of_memory(model, whole, args.batch_size)):
        say(notice)
    models.optimize(model)
    models.choose_decoder(model, args.decoder)
    config = decoding_config(model, utterances, args.timestamps, dict(args.prompt))
    if args.timestamps:
        models.enable_timestamps(model, formats.option_with_times(args))
    decoding_options.set_decoding(model, config, args)
    return model, config


def _slot(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
