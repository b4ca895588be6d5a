r"""How well a model's word timestamps fit the true ones of a manifest whose rows have `words` (word, start, end).

    python -m benchmarks.transducers.timestamps test_seen.jsonl hybrid.nemo conformer.nemo \
        > benchmarks/results/timestamps.md

Times are in seconds. Words are aligned to the reference; those recognised right are compared. A hybrid model is taken
with each of its decoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

GAP = "*"  # what kaldialign puts opposite an insertion or a deletion


def pairs(words: list[dict[str, Any]], true: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The words recognised right, each with its true one."""
    from kaldialign import align

    said, found = iter(true), iter(words)
    for reference, hypothesis in align([w["word"] for w in true], [w["word"] for w in words], GAP):
        wanted = next(said) if reference != GAP else None
        got = next(found) if hypothesis != GAP else None
        if wanted is not None and got is not None and reference == hypothesis:
            yield got, wanted


def report(model: Any, rows: list[dict[str, Any]]) -> list[str]:
    """The cells of a row: word error rate, share that overlaps, median errors of start and end in milliseconds."""
    from nemo.collections.asr.metrics.wer import word_error_rate

    audio = [row["audio_filepath"] for row in rows]
    hypotheses = model.transcribe(audio, timestamps=True, batch_size=16, verbose=False, num_workers=0)
    wer = word_error_rate([h.text for h in hypotheses], [row["text"] for row in rows])
    matched = [pair for h, row in zip(hypotheses, rows) for pair in pairs(h.timestamp["word"], row["words"])]
    overlap = sum(got["start"] < true["end"] and true["start"] < got["end"] for got, true in matched) / len(matched)
    start = median(abs(got["start"] - true["start"]) for got, true in matched)
    end = median(abs(got["end"] - true["end"]) for got, true in matched)
    early = median(got["start"] - true["start"] for got, true in matched)
    cells = [f"{100 * wer:.2f}", str(len(matched)), f"{100 * overlap:.1f}"]
    return [*cells, f"{1e3 * start:.0f} ({1e3 * early:+.0f})", f"{1e3 * end:.0f}"]


def main() -> None:
    import torch
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    parser = command_line("benchmarks.transducers.timestamps", __doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    args = parser.parse_args()
    logging.setLevel(logging.ERROR)
    rows = recordings.rows(args.manifest)
    words = sum(len(row["words"]) for row in rows)
    print("Made by `python -m benchmarks.transducers.timestamps`.\n")
    print(f"Word timestamps on {args.manifest.stem}: {len(rows)} utterances, {words} words.\n")
    errors = ["start error, ms (signed)", "end error, ms"]
    print(head(["model", "decoder", "WER, %", "right words", "overlap, %", *errors]))
    for path in args.models:
        model = ASRModel.restore_from(path, map_location=torch.device("cpu"))
        decoders = ["rnnt", "ctc"] if hasattr(model, "cur_decoder") else [None]
        for decoder in decoders:
            if decoder is not None:
                model.change_decoding_strategy(decoder_type=decoder, verbose=False)
            print(line([path.stem, decoder or type(model).__name__, *report(model, rows)]))


if __name__ == "__main__":
    main()
