"""The work of `transcribe` after the model is loaded: decode all utterances, write their rows, and report the time."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.commands.rows import cut_options, formats, transcripts
from nemo_squeezeformer.commands.rows.finished import Finished
from nemo_squeezeformer.commands.rows.results import row_of_result
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.process.causes import is_out_of_memory

if TYPE_CHECKING:
    from nemo_squeezeformer.transcription.hypotheses import Result


def transcribe(model: Any, config: Any, order: list[int], finished: Finished, args: argparse.Namespace) -> int:
    """Transcribe utterances, write their rows, and return the exit status.

    Args:
        model: a NeMo ASR model.
        config: the result of ``hypotheses.decoding_config``.
        order: the indices of the utterances to transcribe.
        finished: receives the rows.
        args: the options of ``transcribe``.

    Raises:
        UserError: the memory is too small, or the rows cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM has arrived. OUT.partial has the finished rows.
    """
    import torch

    utterances, partial = finished.utterances, finished.partial
    if partial:  # the sort is stable: utterances of one length keep their order
        order = sorted(order, key=lambda index: -utterances[index].duration)
    waiting = [utterances[index] for index in order]
    device = next(model.parameters()).device.type
    workers = 4 * (device == "cuda") if args.num_workers is None else args.num_workers
    try:
        finished.add([(i, transcripts.row_of(u, error=u.problem)) for i, u in enumerate(utterances) if u.problem])
        batches = _decoded(model, config, waiting, workers, args)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if args.amp:
                stack.enter_context(torch.autocast(device, torch.bfloat16 if args.amp == "bf16" else torch.float16))
            _add_all(batches, order, finished)
        if len(finished.rows) != len(utterances):
            raise RuntimeError(
                f"{type(model).__name__} returned {len(finished.rows)} transcripts for {len(utterances)} utterances"
            )
        if partial:
            partial.finish(lambda path, rows: formats.write(path, utterances, rows, args))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
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


def _decoded(
    model: Any, config: Any, utterances: Sequence[Utterance], workers: int, args: argparse.Namespace
) -> Iterator[list[Result]]:
    """Return the results of the utterances in the given order. Long recordings are cut at pauses.

    The call prepares the first group of utterances, for example the network that finds pauses. The other groups are
    prepared after the results of the group before them.
    """
    from nemo_squeezeformer.transcription.decoding.confidence import with_words
    from nemo_squeezeformer.transcription.hypotheses import decode
    from nemo_squeezeformer.transcription.pauses.cut_recordings import decode_cut

    def complete(batches: Iterator[list[Result]]) -> Iterator[list[Result]]:
        return with_words(model, batches, args.timestamps) if args.confidence else batches

    def prepared(cut: bool, group: Sequence[Utterance]) -> Iterator[list[Result]]:
        if cut:
            return decode_cut(model, config, group, args.batch_size, args.channel, args.longest, complete)
        return complete(decode(model, config, group, args.batch_size, workers, args.channel))

    groups = itertools.groupby(utterances, lambda utterance: cut_options.is_cut(args, utterance))
    batches = (prepared(cut, list(group)) for cut, group in groups)
    first = next(batches, iter(()))
    return itertools.chain(first, itertools.chain.from_iterable(batches))


def _add_all(batches: Iterator[list[Result]], order: Sequence[int], finished: Finished) -> None:
    from tqdm import tqdm

    indices = iter(order)
    with tqdm(total=len(order), unit=" utterances", desc="transcribing", disable=None) as bar:
        for batch in batches:
            finished.add(
                [(index, row_of_result(finished.utterances[index], result)) for result, index in zip(batch, indices)]
            )
            bar.update(len(batch))


def _out_of_memory(utterances: Sequence[Utterance], args: argparse.Namespace) -> UserError:
    from nemo_squeezeformer.transcription.long_audio import REMEDY

    longest = max(utterance.duration for utterance in utterances)
    return UserError(
        f"out of memory with --batch-size {args.batch_size} (the longest utterance has {longest:.0f} s): pass a "
        f"smaller --batch-size, --amp bf16, or {REMEDY}"
    )


def _report(utterances: Sequence[Utterance], seconds: float, device: str, args: argparse.Namespace) -> None:
    audio = sum(utterance.duration for utterance in utterances)
    if audio:
        say(
            f"{len(utterances)} utterances, {audio / 3600:.3f} h of audio in {seconds:.1f} s on {device}, batch size "
            f"{args.batch_size}: RTFx {audio / seconds:.1f} (audio / time), RTF {seconds / audio:.4f} (time / audio)"
        )
