"""The row of a transcribed utterance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_squeezeformer.commands.rows import transcripts
from nemo_squeezeformer.commands.rows.partial_lines import Row
from nemo_squeezeformer.files.manifests import Utterance

if TYPE_CHECKING:
    from nemo_squeezeformer.transcription.hypotheses import Result


def row_of_result(utterance: Utterance, result: Result) -> Row:
    """Return the row of an utterance: the fields of the manifest, and ``pred_text`` or ``error``."""
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
    if getattr(best, "word_confidence", None) is not None:
        row["word_confidence"] = best.word_confidence
    return row
