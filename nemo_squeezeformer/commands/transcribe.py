"""Transcribe audio files, folders and manifests with any NeMo ASR model, batch by batch."""

import argparse
import contextlib
import itertools
import json
import logging
import os
import sys
import tarfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from nemo_squeezeformer import manifests
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.manifests import Utterance

HELP = "transcribe audio files, folders or manifests with a .nemo model"
DESCRIPTION = """\
Each utterance gives a line. On stdout: the path, a tab, the transcript, in the order of the input. With --output: the
manifest row's own fields and pred_text, as JSON; the longest utterances go first (little padding, and a batch that does
not fit in memory shows at once) and each finished batch is added to OUT.partial, which becomes OUT, in the order of the
input, when all is done. At the end, on stderr: hours of audio, time, and the word error rate where rows have a text."""
MANIFEST_EXTENSIONS = {".json", ".jsonl"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .nemo file, or the name of a pretrained model to be fetched")
    add("inputs", metavar="INPUT", nargs="+", help="audio files, folders (searched through), manifests (.json, .jsonl)")
    add("--output", "-o", metavar="OUT", type=Path, help="write JSON lines here instead of transcripts to stdout")
    add("--force", action="store_true", help="overwrite OUT and OUT.partial if they exist")
    add("--batch-size", type=_positive, default=16, metavar="N", help="utterances a batch (default: %(default)s)")
    add("--num-workers", type=int, metavar="N", help="processes that read audio (default: none on cpu, 4 on cuda)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where there is one")
    add("--amp", choices=("bf16", "fp16"), help="automatic mixed precision; default: off, the model's own precision")
    add(
        "--timestamps",
        action="store_true",
        help="add words and segments with start and end in seconds of the utterance",
    )
    add("--decoder", choices=("ctc", "rnnt"), help="which decoder of a hybrid model (default: its own choice)")
    add(
        "--channel",
        type=_channel,
        default="average",
        metavar="average|N",
        help="of several: the average, or one, from 0",
    )
    add(
        "--prompt",
        type=_slot,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a slot of an AED model's prompt",
    )
    add("--verbose", action="store_true", help="show NeMo's log and warnings, and tracebacks of failed downloads")


def main(args: argparse.Namespace) -> int:
    """0 when every utterance has its transcript, 130 when interrupted.

    Raises:
        UserError: before anything slow: an input that is missing, unreadable or empty, an OUT that exists; then: a
            model that cannot be found, a device that is not there, memory that runs out.
    """
    _check_output(args)
    _check_model(args.model)
    utterances = _utterances(args.inputs)
    _check_channels(utterances, args.channel)
    stdout = sys.stdout
    with _quiet(args.verbose):
        import torch

        from nemo_squeezeformer import transcription

        if args.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
        cuda = args.device != "cpu" and torch.cuda.is_available()
        model = transcription.load_model(args.model, torch.device("cuda" if cuda else "cpu"), args.verbose)
        config = transcription.settings(
            model, utterances, timestamps=args.timestamps, decoder=args.decoder, prompt=dict(args.prompt)
        )
        return _transcribe(model, config, utterances, args, stdout)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _channel(text: str) -> str | int:
    if text != "average" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'average' nor a channel number from 0")
    return text if text == "average" else int(text)


def _slot(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _partial(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _check_output(args: argparse.Namespace) -> None:
    if args.output is None:
        return
    if not args.output.absolute().parent.is_dir():
        raise UserError(f"--output {args.output}: there is no folder {args.output.parent}; make it first")
    if any(args.output.resolve() == Path(name).resolve() for name in [args.model, *args.inputs]):
        raise UserError(f"--output {args.output} is also read; choose another name")
    for path in (args.output, _partial(args.output)):
        if path.exists() and not args.force:
            raise UserError(f"{path} exists; choose another --output, or pass --force to overwrite it")


def _check_model(name: str) -> None:
    path = Path(name)
    if path.is_file() and not tarfile.is_tarfile(path):
        raise UserError(f"{name} is not a NeMo archive; give a .nemo file, as model.save_to() writes it")
    if path.is_dir() or (not path.exists() and path.suffix in {".nemo", ".ckpt"}):
        raise UserError(f"there is no model file {name}; give a .nemo file or the name of a pretrained model")


def _utterances(inputs: Sequence[str]) -> list[Utterance]:
    """Every utterance of the inputs, in their order; all that is wrong with them is found here, without NeMo."""
    found: list[Utterance] = []
    for is_manifest, names in itertools.groupby(inputs, lambda name: Path(name).suffix.lower() in MANIFEST_EXTENSIONS):
        if is_manifest:
            for name in names:
                found += manifests.check(name, required=("audio_filepath",))
        else:  # together, so that one error tells of all
            found += manifests.check_files([file for name in names for file in _files(Path(name))])
    if not all(utterance.channels for utterance in found) or not found:
        raise UserError(
            "audio or manifests in an object store are not read from there; copy them to this machine first"
        )
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in manifests.AUDIO_EXTENSIONS)
    if not files:
        kinds = " ".join(sorted(manifests.AUDIO_EXTENSIONS))
        raise UserError(f"no audio in the folder {path}: looked for {kinds}, in folders below it too")
    return files


def _check_channels(utterances: Sequence[Utterance], channel: str | int) -> None:
    several = [utterance for utterance in utterances if utterance.channels > 1]
    lacking = [utterance for utterance in several if isinstance(channel, int) and utterance.channels <= channel]
    if lacking:
        first = lacking[0]
        raise UserError(f"--channel {channel}: {first.audio} has only {first.channels} channels, numbered from 0")
    if several:
        what = "their average is" if channel == "average" else f"channel {channel} is"
        _say(f"{len(several)} of {len(utterances)} utterances have several channels: {what} transcribed (--channel)")


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """NeMo's log and the warnings of all it imports, off the screen; what it prints goes to stderr at most."""
    os.environ.setdefault("NEMO_REDIRECT_LOGS_TO_STDERR", "1")
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _transcribe(
    model: Any, config: Any, utterances: Sequence[Utterance], args: argparse.Namespace, stdout: TextIO
) -> int:
    import torch
    from tqdm import tqdm

    from nemo_squeezeformer import transcription

    # The sort is stable: utterances of one length keep their order.
    order = sorted(range(len(utterances)), key=lambda index: -utterances[index].duration if args.output else 0.0)
    device = next(model.parameters()).device.type
    workers = 4 * (device == "cuda") if args.num_workers is None else args.num_workers
    batches = transcription.hypotheses(
        model, config, [utterances[index] for index in order], args.batch_size, workers, args.channel
    )
    lines: dict[int, str] = {}
    texts: dict[int, str] = {}
    partial = _partial(args.output) if args.output else None
    start = time.perf_counter()
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(partial.open("w", encoding="utf-8")) if partial else stdout
            bar = stack.enter_context(tqdm(total=len(order), unit=" utterances", desc="transcribing", disable=None))
            if args.amp:
                stack.enter_context(torch.autocast(device, torch.bfloat16 if args.amp == "bf16" else torch.float16))
            for batch in batches:
                for index, best in zip(order[len(texts) :], batch):
                    texts[index] = best if isinstance(best, str) else best.text
                    lines[index] = _line(utterances[index], texts[index], best, args)
                    bar.write(lines[index], file=file)
                file.flush()
                bar.update(len(batch))
        if len(texts) != len(order):
            raise RuntimeError(f"{type(model).__name__} gave {len(texts)} transcripts for {len(order)} utterances")
        if partial:
            _finish(args.output, partial, [lines[index] for index in range(len(lines))])
    except torch.cuda.OutOfMemoryError:
        longest = max(utterance.duration for utterance in utterances)
        raise UserError(
            f"out of memory with --batch-size {args.batch_size} (the longest utterance has {longest:.0f} s): take a "
            "smaller --batch-size, --amp bf16, or cut long recordings"
        ) from None
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # `| head` has seen enough; Python's flush at exit must not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return 1
    finally:
        if partial and partial.exists():
            if texts:
                _say(f"{len(texts)} of {len(order)} utterances are done: {partial} keeps them")
            else:
                partial.unlink()
    _report(utterances, texts, time.perf_counter() - start, device, args)
    return 0


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


def _finish(output: Path, partial: Path, lines: Sequence[str]) -> None:
    """OUT appears whole or not at all, and until it does OUT.partial stays."""
    ordered = output.with_name(output.name + ".ordered")
    ordered.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    os.replace(ordered, output)
    partial.unlink()


def _report(
    utterances: Sequence[Utterance], texts: dict[int, str], seconds: float, device: str, args: argparse.Namespace
) -> None:
    from nemo.collections.asr.metrics.wer import word_error_rate_detail

    audio = sum(utterance.duration for utterance in utterances)
    _say(
        f"{len(utterances)} utterances, {audio / 3600:.3f} h of audio in {seconds:.1f} s on {device}, batch size "
        f"{args.batch_size}: RTFx {audio / seconds:.1f} (audio / time), RTF {seconds / audio:.4f} (time / audio)"
    )
    scored = [index for index, utterance in enumerate(utterances) if isinstance(utterance.row.get("text"), str)]
    pairs = [texts[index] for index in scored], [utterances[index].row["text"] for index in scored]
    if any(pairs[1]):
        wer, words, inserted, deleted, substituted = word_error_rate_detail(*pairs)
        cer = word_error_rate_detail(*pairs, use_cer=True)[0]
        _say(
            f"WER {wer:.2%} of {words} words (inserted {inserted:.2%}, deleted {deleted:.2%}, substituted "
            f"{substituted:.2%}), CER {cer:.2%}; {len(scored)} utterances with text, compared as it is written"
        )
    if args.output:
        _say(f"transcripts: {args.output}")


def _say(message: str) -> None:
    print(message, file=sys.stderr)
