"""The results of the pieces of a recording, joined to the result of the recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def joined(found: Sequence[tuple[float, Any]]) -> Any:
    """Return the result of a recording: a ``Hypothesis`` of NeMo, or a str if the pieces have only texts.

    The texts are joined with spaces. The score is the sum of the scores. Timestamps and the confidence of words are
    joined, with times from the start of the recording.

    Args:
        found: the start in seconds and the result of each piece, in the order of the pieces.
    """
    found = [(start, best) for start, best in found if not isinstance(best, str) or best]
    text = " ".join(text for _, best in found if (text := (best if isinstance(best, str) else best.text).strip()))
    if not found or any(isinstance(best, str) for _, best in found):
        return text
    from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

    whole = Hypothesis(score=sum(float(best.score) for _, best in found), y_sequence=[], text=text)
    timed = [(start, best.timestamp) for start, best in found if isinstance(best.timestamp, dict)]
    if timed:
        kinds = dict.fromkeys(kind for _, timestamp in timed for kind in ("word", "segment") if kind in timestamp)
        whole.timestamp = {
            kind: [moved(item, kind, start) for start, timestamp in timed for item in timestamp.get(kind, [])]
            for kind in kinds
        }
    if all(best.word_confidence is not None for _, best in found):
        whole.word_confidence = [word for _, best in found for word in best.word_confidence]
    return whole


def moved(item: dict[str, Any], kind: str, seconds: float) -> dict[str, Any]:
    """Return the text of a timestamp with its times, ``seconds`` later."""
    return {kind: item[kind], "start": item["start"] + seconds, "end": item["end"] + seconds}
