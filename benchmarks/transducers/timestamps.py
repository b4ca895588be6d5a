r"""The errors of word timestamps, for a manifest whose rows have the true `words` (word, start, end).

    python -m benchmarks.transducers.timestamps test_seen.jsonl hybrid.nemo conformer.nemo \
        > benchmarks/results/timestamps.md

Times in the manifest are in seconds. The recognized words are aligned to the reference. Only correctly recognized words
are compared. A hybrid model is measured with each of its decoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

GAP = "*"  # kaldialign writes this opposite an insertion or a deletion


def pairs(words: list[dict[str, Any]], true: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each correctly recognized word together with the true word."""
    from kaldialign import align

    said, found = iter(true), iter(words)
    for reference, hypothesis in align([w["word"] for w in true], [w["word"] for w in words], GAP):
        wanted = next(said) if reference != GAP else None
        got = next(found) if hypothesis != GAP else None
        if wanted is not None and got is not None and reference == hypothesis:
            yield got, wanted


def report(model: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Return the cells of a row.

    They are the word error rate, the number of correct words, the share of these words that overlap with the true
    words, and the median errors of start and end in milliseconds.
    """
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
    print("`python -m benchmarks.transducers.timestamps` makes this page.\n")
    print(
        f"The table compares word timestamps with the true times of {args.manifest.stem}: {len(rows)} utterances,\n"
        f"{words} words. Only correctly recognized words are compared. The errors are medians. A positive signed\n"
        "error means that the word starts too late.\n"
    )
    errors = ["error of the start, ms (signed error)", "error of the end, ms"]
    print(head(["model", "decoder", "WER, %", "correct words", "correct words that overlap, %", *errors]))
    for path in args.models:
        model = ASRModel.restore_from(path, map_location=torch.device("cpu"))
        only = "transducer" if hasattr(model, "joint") else "CTC"
        decoders = {"rnnt": "transducer", "ctc": "CTC"} if hasattr(model, "cur_decoder") else {None: only}
        for decoder, called in decoders.items():
            if decoder is not None:
                model.change_decoding_strategy(decoder_type=decoder, verbose=False)
            print(line([path.stem, called, *report(model, rows)]))


if __name__ == "__main__":
    main()
